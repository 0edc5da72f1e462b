// A forgotten password: ask for a mail, then set a new one by its code.
import { useState } from "preact/hooks";
import type { ChatError } from "@ai-chat-platform/client";
import { to } from "../platform/route";
import { auth } from "../platform/session";
import { Button } from "../ui/button";
import { Field } from "../ui/field";
import { Form } from "../ui/form";
import { Password } from "../ui/password";
import { Notice } from "../ui/states";
import { awaited, awaitMail, stopWaiting } from "./awaited";
import { CodeField } from "./code_field";
import { enter, handedOver } from "./place";
import { Resend } from "./resend";
import { words } from "./words";

export function Recover() {
  const t = words();
  const mail = awaited.value;
  return (
    <>
      <h2>{t.recover}</h2>
      {mail?.purpose === "recovery" ? <Reset email={mail.email} /> : <Ask />}
      <p class="small"><a href={to("welcome", "sign-in")}>{t.back}</a></p>
    </>
  );
}

function Ask() {
  const t = words();
  const ask = async ({ email }: Record<string, string>) => {
    await auth.recover(email!);
    awaitMail(email!, "recovery");
  };
  return (
    <>
      <p>{t.recoverText}</p>
      <Form onSubmit={ask} submit={t.recoverButton}>
        {(wrong) => <Field label={t.email} name="email" type="email" autoComplete="username" defaultValue={handedOver()} maxLength={254} required wrong={wrong("email")} />}
      </Form>
    </>
  );
}

function Reset({ email }: { email: string }) {
  const t = words();
  const [isProved, setProved] = useState(false);
  const reset = async ({ code, password }: Record<string, string>) => {
    try {
      await auth.reset(email, code ?? "", password!);
    } catch (error) {
      const { code: why } = error as ChatError;
      setProved(why === "weak_password" || (isProved && (error as ChatError).retryable));
      throw error;
    }
    enter();
  };
  return (
    <>
      <p>{t.resetText(email)}</p>
      <Form onSubmit={reset} submit={t.resetButton} at={{ weak_password: "password", otp_expired: "code" }} beside={<Button kind="plain" onClick={stopWaiting}>{t.back}</Button>}>
        {(wrong) => (
          <>
            <input type="text" name="username" autoComplete="username" value={email} readOnly hidden />
            {isProved ? <Notice kind="good">{t.codeUsed}</Notice> : <CodeField wrong={wrong("code")} />}
            <Password label={t.newPassword} name="password" isNew wrong={wrong("password")} />
            <p class="small soft">{t.resetHint}</p>
          </>
        )}
      </Form>
      {!isProved && <Resend send={() => auth.recover(email)} />}
    </>
  );
}
