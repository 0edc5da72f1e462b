import { type Profile as ProfileData } from "@ai-chat-platform/client/wire";
import { useState } from "preact/hooks";
import { get, send } from "../platform/api";
import { auth, readSession, signOut } from "../platform/session";
import { Button } from "../ui/button";
import { LanguageChooser, ThemeChooser } from "../ui/choosers";
import { Field } from "../ui/field";
import { Form } from "../ui/form";
import { useResource } from "../ui/resource";
import { Loaded } from "../ui/states";
import { announce } from "../ui/toast";
import { Email } from "./email";
import { words } from "./words";

export function Profile() {
  const t = words();
  const profile = useResource(() => get<ProfileData>("user/profile"), []);
  const [isLeaving, setLeaving] = useState(false);
  const rename = async ({ name }: Record<string, string>) => {
    profile.set(await send<ProfileData>("PATCH", "user/profile", { name }));
    announce(t.saved);
    await auth.reloadUser();
    readSession();
  };
  return (
    <div class="stack">
      <section class="card stack">
        <Loaded from={profile}>
          {({ name }) => (
            <Form onSubmit={rename} submit={t.save}>
              {(wrong) => <Field label={t.name} hint={t.nameHint} name="name" autoComplete="name" defaultValue={name ?? ""} maxLength={100} required wrong={wrong("name")} />}
            </Form>
          )}
        </Loaded>
      </section>
      <Email />
      <section class="card stack">
        <div>
          <h2>{t.look}</h2>
          <p class="small soft">{t.lookText}</p>
        </div>
        <div class="pair">
          <LanguageChooser />
          <ThemeChooser />
        </div>
      </section>
      <section class="card row apart">
        <p class="small soft grow">{t.signOutText}</p>
        <Button icon="out" busy={isLeaving} onClick={() => (setLeaving(true), void signOut())}>{t.signOut}</Button>
      </section>
    </div>
  );
}
