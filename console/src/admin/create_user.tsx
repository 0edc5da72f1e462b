// A new user: with a password, or with a mail that lets them choose one.
import type { AdminUser, CreateUser as Body, Plans } from "@ai-chat-platform/client/wire";
import { useState } from "preact/hooks";
import { get, send } from "../platform/api";
import { open, to } from "../platform/route";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { Field, Select } from "../ui/field";
import { Form } from "../ui/form";
import { Password } from "../ui/password";
import { useResource } from "../ui/resource";
import { announce } from "../ui/toast";
import { words as uiWords } from "../ui/words";
import { Choice } from "./choice";
import { words } from "./create_words";

type Way = "invite" | "password";

export function CreateUser({ onClose }: { onClose: () => void }) {
  const t = words();
  const plans = useResource(() => get<Plans>("admin/plans"), []);
  const [way, setWay] = useState<Way>("invite");
  const [plan, setPlan] = useState("");
  const create = async ({ email = "", name, password }: Record<string, string>) => {
    const body: Body = { email, ...(name && { name }), ...(plan && { plan }), ...(way === "password" && { password }) };
    const made = await send<AdminUser>("POST", "admin/users", body);
    const isInvited = way === "invite" && (await invite(made.email));
    announce(way === "password" ? t.created(made.email) : isInvited ? t.invited(made.email) : t.notInvited(made.email));
    open(to("admin", "users", made.id));
  };
  const usual = plans.data?.default;
  const others = Object.keys(plans.data?.plans ?? {}).filter((name) => name !== usual);
  return (
    <Dialog title={t.title} onClose={onClose}>
      <Form onSubmit={create} submit={t.create} at={{ invalid_request: "email", weak_password: "password" }} own={{ invalid_request: t.refused }} beside={<Button onClick={onClose}>{uiWords().cancel}</Button>}>
        {(wrong) => (
          <>
            <Field label={t.email} name="email" type="email" required autoFocus maxLength={254} autoComplete="off" spellcheck={false} wrong={wrong("email")} />
            <Field label={t.name} name="name" hint={t.nameHint} maxLength={100} autoComplete="off" wrong={wrong("name")} />
            <Choice<Way> legend={t.way} chosen={way} onChoose={setWay} options={[["invite", t.invite, t.inviteHint], ["password", t.withPassword, t.withPasswordHint]]} />
            {way === "password" && <Password label={t.password} name="password" isNew wrong={wrong("password")} />}
            {usual && others.length > 0 && <Select label={t.plan} value={plan} options={[["", t.defaultPlan(usual)], ...others.map((name) => [name, name] as const)]} onChoose={setPlan} />}
          </>
        )}
      </Form>
    </Dialog>
  );
}

/** Sends the mail of "forgot password". False if it could not be requested: the user may request it later, too. */
async function invite(email: string): Promise<boolean> {
  try {
    await send("POST", "auth/recover", { email });
    return true;
  } catch {
    return false;
  }
}
