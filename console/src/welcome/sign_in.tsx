import type { ChatError } from "@ai-chat-platform/client";
import { about } from "../platform/about";
import { open, to } from "../platform/route";
import { auth } from "../platform/session";
import { Field } from "../ui/field";
import { Form } from "../ui/form";
import { Password } from "../ui/password";
import { awaitMail, RESEND_AFTER } from "./awaited";
import { enter, handedOver } from "./place";
import { words } from "./words";

/** Auth says so only to who knows the password. */
const isUnconfirmed = ({ code, message }: ChatError) => code === "unauthorized" && message.startsWith("Confirm your e-mail");

export function SignIn() {
  const t = words();
  const signIn = async ({ email, password }: Record<string, string>) => {
    try {
      await auth.signIn(email!, password!);
    } catch (error) {
      if (!isUnconfirmed(error as ChatError)) throw error;
      awaitMail(email!, "signup", Date.now() - RESEND_AFTER * 1000);
      return open(to("welcome", "confirm"));
    }
    enter();
  };
  return (
    <>
      <h2>{t.signIn}</h2>
      <Form
        onSubmit={signIn}
        submit={t.signIn}
        own={{ unauthorized: t.wrongPassword }}
        beside={<a class="small" href={to("welcome", "recover")}>{t.forgot}</a>}
      >
        {(wrong) => (
          <>
            <Field label={t.email} name="email" type="email" autoComplete="username" defaultValue={handedOver()} maxLength={254} required wrong={wrong("email")} />
            <Password label={t.password} name="password" wrong={wrong("password")} />
          </>
        )}
      </Form>
      {about.value?.sign_up.is_open === false ? (
        <p class="small soft">{t.closed}</p>
      ) : (
        <div class="row other">
          <span>{t.noAccount}</span>
          <a class="button" href={to("welcome", "sign-up")}>{t.signUp}</a>
        </div>
      )}
    </>
  );
}
