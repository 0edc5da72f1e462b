// A password that can be looked at while it is typed. A new one says its rules.
import { useId, useState } from "preact/hooks";
import { dictionary } from "../platform/language";
import { Button } from "./button";

const words = dictionary(
  {
    rules: "At least 8 characters, with letters and digits.",
    show: "Show the password",
    hide: "Hide the password",
  },
  {
    rules: "Не меньше 8 символов, с буквами и цифрами.",
    show: "Показать пароль",
    hide: "Скрыть пароль",
  },
);

interface PasswordProps {
  label: string;
  name: string;
  isNew?: boolean;
  wrong?: string | undefined;
  autoFocus?: boolean;
}

export function Password({ label, name, isNew, wrong, autoFocus }: PasswordProps) {
  const t = words();
  const id = useId();
  const [isShown, setShown] = useState(false);
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <div class="password">
        <input
          class="input"
          id={id}
          name={name}
          {...({ type: isShown ? "text" : "password" } as object)}
          autoComplete={isNew ? "new-password" : "current-password"}
          autoCapitalize="none"
          spellcheck={false}
          maxLength={256}
          required
          autoFocus={!!autoFocus}
          aria-describedby={`${id}-hint`}
          aria-invalid={!!wrong}
        />
        <Button kind="plain" icon={isShown ? "hide" : "show"} label={isShown ? t.hide : t.show} aria-pressed={isShown} onClick={() => setShown(!isShown)} />
      </div>
      <span id={`${id}-hint`}>
        {wrong ? <span class="wrong" role="alert">{wrong}</span> : isNew && <span class="hint">{t.rules}</span>}
      </span>
    </div>
  );
}
