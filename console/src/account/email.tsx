// The address one signs in with. A new one counts once it is confirmed by a code, or by the link in the mail.
import { ChatError } from "@ai-chat-platform/client";
import { useState } from "preact/hooks";
import { sentence } from "../platform/problem_words";
import { auth, readSession, user } from "../platform/session";
import { Button } from "../ui/button";
import { Field } from "../ui/field";
import { Form } from "../ui/form";
import { Password } from "../ui/password";
import { Notice } from "../ui/states";
import { announce } from "../ui/toast";
import { words } from "./words";

export function Email() {
  const t = words();
  const [asked, setAsked] = useState<string | null>(null);
  const now = user.value?.email ?? "";
  const change = async ({ email, current_password }: Record<string, string>) => {
    const isChanged = await auth.changeEmail(email!, current_password);
    readSession();
    if (isChanged) announce(t.emailChanged(email!));
    else setAsked(email!);
  };
  return (
    <section class="card stack">
      <div>
        <h2>{t.email}</h2>
        <p class="small soft">{t.emailNow(now)}</p>
      </div>
      {asked ? (
        <Confirm email={asked} onDone={() => setAsked(null)} />
      ) : (
        <Form onSubmit={change} submit={t.changeEmail} kind="secondary" at={{ reauthentication_required: "current_password" }} own={{ reauthentication_required: t.wrongPassword }}>
          {(wrong) => (
            <div class="pair">
              <Field label={t.newEmail} name="email" type="email" autoComplete="email" maxLength={254} required wrong={wrong("email")} />
              <Password label={t.currentPassword} name="current_password" wrong={wrong("current_password")} />
            </div>
          )}
        </Form>
      )}
    </section>
  );
}

/** Which address got the mail depends on the project: a code is tried for both. */
async function confirmBy(code: string, addresses: [string, string]): Promise<boolean> {
  try {
    return (await auth.verify(addresses[0], code, "email_change")) !== null;
  } catch (error) {
    if ((error as ChatError).code !== "otp_expired") throw error;
    return (await auth.verify(addresses[1], code, "email_change")) !== null;
  }
}

function Confirm({ email, onDone }: { email: string; onDone: () => void }) {
  const t = words();
  const [needsOther, setNeedsOther] = useState(false);
  const confirm = async ({ code }: Record<string, string>) => {
    if (!(await confirmBy(code!, [email, user.value?.email ?? email]))) return setNeedsOther(true);
    readSession();
    announce(t.emailChanged(email));
    onDone();
  };
  const again = () => auth.resend(email, "email_change").then(() => announce(t.resent), (error: ChatError) => announce(sentence(error)));
  return (
    <>
      <Notice>{needsOther ? t.otherMail : t.emailSent(email)}</Notice>
      <Form key={String(needsOther)} onSubmit={confirm} submit={t.confirm} at={{ otp_expired: "code" }} beside={<><Button kind="plain" onClick={() => void again()}>{t.resend}</Button><Button kind="plain" onClick={onDone}>{t.cancel}</Button></>}>
        {(wrong) => <Field label={t.code} name="code" autoComplete="one-time-code" inputMode="numeric" maxLength={64} autoFocus required wrong={wrong("code")} />}
      </Form>
    </>
  );
}
