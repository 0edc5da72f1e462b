import { useState } from "preact/hooks";
import { auth, user } from "../platform/session";
import { Form } from "../ui/form";
import { Password } from "../ui/password";
import { announce } from "../ui/toast";
import { Devices } from "./devices";
import { words } from "./words";

export function Security() {
  const t = words();
  const [changes, setChanges] = useState(0); // the devices are read again after each
  const change = async ({ password, current_password }: Record<string, string>) => {
    await auth.changePassword(password!, current_password);
    announce(t.passwordChanged);
    setChanges(changes + 1);
  };
  return (
    <div class="stack">
      <section class="card stack">
        <div>
          <h2>{t.password}</h2>
          <p class="small soft">{t.passwordText}</p>
        </div>
        <Form
          clears
          onSubmit={change}
          submit={t.changePassword}
          kind="secondary"
          at={{ reauthentication_required: "current_password", weak_password: "password" }}
          own={{ reauthentication_required: t.wrongPassword }}
        >
          {(wrong) => (
            <div class="pair">
              <input type="text" name="username" autoComplete="username" value={user.value?.email ?? ""} readOnly hidden />
              <Password label={t.currentPassword} name="current_password" wrong={wrong("current_password")} />
              <Password label={t.newPassword} name="password" isNew wrong={wrong("password")} />
            </div>
          )}
        </Form>
      </section>
      <Devices key={changes} />
    </div>
  );
}
