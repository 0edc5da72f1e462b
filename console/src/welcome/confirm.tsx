// A new account's address is confirmed by the code of a mail.
import { open, to } from "../platform/route";
import { auth } from "../platform/session";
import { Field } from "../ui/field";
import { Form } from "../ui/form";
import { awaited } from "./awaited";
import { CodeField } from "./code_field";
import { enter } from "./place";
import { Resend } from "./resend";
import { words } from "./words";

export function Confirm() {
  const t = words();
  const known = awaited.value?.purpose === "signup" ? awaited.value.email : null;
  const confirm = async ({ email, code }: Record<string, string>) => {
    const user = await auth.verify(known ?? email!, code!);
    if (user) enter();
    else open(to("welcome", "sign-in"));
  };
  return (
    <>
      <h2>{t.confirm}</h2>
      {known && <p>{t.confirmText(known)}</p>}
      <Form onSubmit={confirm} submit={t.confirmButton} at={{ otp_expired: "code" }}>
        {(wrong) => (
          <>
            {!known && <Field label={t.email} name="email" type="email" autoComplete="username" required wrong={wrong("email")} />}
            <CodeField wrong={wrong("code")} autoFocus={known !== null} />
          </>
        )}
      </Form>
      <p class="small soft">{t.confirmHint}</p>
      {known && <Resend send={() => auth.resend(known)} />}
      <p class="small">{t.haveAccount} <a href={to("welcome", "sign-in")}>{t.signIn}</a></p>
    </>
  );
}
