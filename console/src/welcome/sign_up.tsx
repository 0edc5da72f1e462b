import { about } from "../platform/about";
import { open, to } from "../platform/route";
import { auth } from "../platform/session";
import { Field } from "../ui/field";
import { Form } from "../ui/form";
import { Password } from "../ui/password";
import { Notice } from "../ui/states";
import { awaitMail } from "./awaited";
import { enter } from "./place";
import { words } from "./words";

export function SignUp() {
  const t = words();
  const rules = about.value?.sign_up;
  const domains = rules?.domains?.map((domain) => `@${domain}`).join(", ");
  const signUp = async ({ name, email, password }: Record<string, string>) => {
    const user = await auth.register(email!, password!, name);
    if (user) return enter();
    awaitMail(email!, "signup");
    open(to("welcome", "confirm"));
  };
  return (
    <>
      <h2>{t.create}</h2>
      {rules?.is_open === false ? (
        <Notice>{t.closed}</Notice>
      ) : (
        <Form onSubmit={signUp} submit={t.signUp} at={{ weak_password: "password", registration_closed: "email" }} own={domains ? { registration_closed: t.notThisDomain } : {}}>
          {(wrong) => (
            <>
              <Field label={t.name} hint={t.nameHint} name="name" autoComplete="name" maxLength={100} wrong={wrong("name")} />
              <Field label={t.email} hint={domains && t.onlyDomains(domains)} name="email" type="email" autoComplete="username" maxLength={254} required wrong={wrong("email")} />
              <Password label={t.password} name="password" isNew wrong={wrong("password")} />
            </>
          )}
        </Form>
      )}
      <p class="small">{t.haveAccount} <a href={to("welcome", "sign-in")}>{t.signIn}</a></p>
    </>
  );
}
