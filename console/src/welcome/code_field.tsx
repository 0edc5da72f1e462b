import { Field } from "../ui/field";
import { words } from "./words";

/** The code of a mail; phones and mail programs offer it by themselves. */
export function CodeField({ wrong, autoFocus = true }: { wrong: string | undefined; autoFocus?: boolean }) {
  return (
    <Field label={words().code} name="code" autoComplete="one-time-code" inputMode="numeric" maxLength={64} spellcheck={false} autoFocus={autoFocus} required wrong={wrong} />
  );
}
