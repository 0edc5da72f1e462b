import type { ComponentChildren, JSX } from "preact";
import { useId } from "preact/hooks";

interface FieldProps {
  label: string;
  hint?: ComponentChildren;
  /** What is wrong with the input; read out when it appears. */
  wrong?: string | null | undefined;
}

/** What an input may be given; Preact's own type forbids combinations of `type` and `role` that nothing here uses. */
interface InputProps extends FieldProps {
  type?: "text" | "email" | "password" | "search" | "number" | "date";
  name?: string;
  value?: string;
  /** For a form that reads its fields when it is sent. */
  defaultValue?: string;
  placeholder?: string;
  autoComplete?: string;
  required?: boolean;
  disabled?: boolean;
  readOnly?: boolean;
  autoFocus?: boolean;
  minLength?: number;
  maxLength?: number;
  min?: string;
  max?: string;
  step?: string;
  pattern?: string;
  inputMode?: "numeric" | "decimal" | "text";
  spellcheck?: boolean;
  onInput?: (event: InputEvent & { currentTarget: HTMLInputElement }) => void;
  onKeyDown?: (event: KeyboardEvent & { currentTarget: HTMLInputElement }) => void;
}

export function Field({ label, hint, wrong, ...input }: InputProps) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input class="input" id={id} aria-describedby={`${id}-hint`} aria-invalid={!!wrong} {...(input as object)} />
      <span id={`${id}-hint`}>
        {hint && <span class="hint">{hint}</span>}
        {wrong && <span class="wrong" role="alert">{wrong}</span>}
      </span>
    </div>
  );
}

export function TextArea({ label, hint, wrong, ...input }: FieldProps & Omit<JSX.IntrinsicElements["textarea"], "label">) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <textarea class="input" id={id} aria-describedby={`${id}-hint`} aria-invalid={!!wrong} {...input} />
      <span id={`${id}-hint`}>
        {hint && <span class="hint">{hint}</span>}
        {wrong && <span class="wrong" role="alert">{wrong}</span>}
      </span>
    </div>
  );
}

export function Select<T extends string>({ label, value, options, onChoose }: { label: string; value: T; options: readonly (readonly [T, string])[]; onChoose: (value: T) => void }) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select class="input" id={id} value={value} onChange={(event) => onChoose(event.currentTarget.value as T)}>
        {options.map(([option, text]) => (
          <option key={option} value={option}>{text}</option>
        ))}
      </select>
    </div>
  );
}
