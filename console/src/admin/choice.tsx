// One of a few ways, each with a sentence about it.
import { useId } from "preact/hooks";

interface ChoiceProps<T extends string> {
  legend: string;
  /** Value, name, explanation. */
  options: readonly (readonly [T, string, string])[];
  chosen: T;
  onChoose: (value: T) => void;
}

export function Choice<T extends string>({ legend, options, chosen, onChoose }: ChoiceProps<T>) {
  const id = useId();
  return (
    <fieldset class="choice">
      <legend>{legend}</legend>
      {options.map(([value, name, hint]) => (
        <label key={value}>
          <input type="radio" name={id} checked={value === chosen} onChange={() => onChoose(value)} />
          <span>{name}<span class="hint">{hint}</span></span>
        </label>
      ))}
    </fieldset>
  );
}
