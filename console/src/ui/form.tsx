// A form that is sent to the server: it waits, says what is wrong at the field where it is wrong, and keeps what was typed.
import { ChatError, type ErrorInfo } from "@ai-chat-platform/client";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { dictionary } from "../platform/language";
import { fieldSentences, type OwnSentences, sentence } from "../platform/problem_words";
import { Button } from "./button";
import { Problem } from "./states";

const words = dictionary(
  {
    missing: "Fill this in.",
    email: "Enter an address such as name@example.com.",
    invalid: "This is not valid.",
  },
  {
    missing: "Заполните это поле.",
    email: "Введите адрес вида name@example.com.",
    invalid: "Так не годится.",
  },
);

interface FormProps {
  /** The fields by their names, trimmed except for passwords. What it throws is shown. */
  onSubmit: (fields: Record<string, string>) => Promise<void>;
  submit: string;
  /** "secondary": one of several forms of a page. */
  kind?: "primary" | "secondary" | "danger";
  /** Codes that are about one field: `{weak_password: "password"}`. */
  at?: Partial<Record<ErrorInfo["code"], string>>;
  own?: OwnSentences;
  disabled?: boolean;
  /** Empty the fields when they have been sent. */
  clears?: boolean;
  /** Beside the button. */
  beside?: ComponentChildren;
  /** The fields; `wrong(name)` says what is wrong with one. */
  children: (wrong: (name: string) => string | undefined) => ComponentChildren;
}

export function Form({ onSubmit, submit, kind = "primary", at = {}, own = {}, disabled, clears, beside, children }: FormProps) {
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<ErrorInfo | null>(null);
  const [unfilled, setUnfilled] = useState<Record<string, string>>({});
  const form = useRef<HTMLFormElement>(null);
  const alive = useRef(true);
  useEffect(() => () => void (alive.current = false), []);
  const place = error && at[error.code];
  const wrongs = { ...unfilled, ...(error && fieldSentences(error)), ...(place && { [place]: sentence(error, own) }) };
  useEffect(() => form.current?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus(), [error, unfilled]);

  const send = async (event: Event) => {
    event.preventDefault();
    if (isBusy) return;
    setError(null);
    const missing = lacking(form.current!);
    setUnfilled(missing);
    if (Object.keys(missing).length) return;
    setBusy(true);
    try {
      await onSubmit(valuesOf(form.current!));
      if (clears) form.current?.reset();
    } catch (cause) {
      if (alive.current) setError(cause instanceof ChatError ? cause : new ChatError("internal_error", String(cause)));
    }
    if (alive.current) setBusy(false);
  };
  const isShownAtField = Object.keys(wrongs).some((name) => form.current?.elements.namedItem(name));
  return (
    <form ref={form} class="stack" noValidate onSubmit={(event) => void send(event)}>
      {children((name) => wrongs[name])}
      {error && !isShownAtField && <Problem error={error} own={own} />}
      <div class="row">
        <Button type="submit" {...(kind !== "secondary" && { kind })} busy={isBusy} disabled={!!disabled}>{submit}</Button>
        {beside}
      </div>
    </form>
  );
}

function valuesOf(form: HTMLFormElement): Record<string, string> {
  const values: Record<string, string> = {};
  for (const [name, value] of new FormData(form)) values[name] = /password/.test(name) ? String(value) : String(value).trim();
  return values;
}

/** The browser knows what is wrong; its own bubbles speak its language, not the console's. */
function lacking(form: HTMLFormElement): Record<string, string> {
  const t = words();
  const found: Record<string, string> = {};
  for (const input of form.querySelectorAll<HTMLInputElement>("input[name]")) {
    const { valid, valueMissing } = input.validity;
    if (!valid) found[input.name] = valueMissing ? t.missing : input.type === "email" ? t.email : t.invalid;
  }
  return found;
}
