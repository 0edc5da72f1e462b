// Making a key. It is shown once, with a first request to try it.
import { ChatError } from "@ai-chat-platform/client";
import type { CreateApiKey, NewApiKey } from "@ai-chat-platform/client/wire";
import { useState } from "preact/hooks";
import { send } from "../platform/api";
import { server } from "../platform/session";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { Field, Select } from "../ui/field";
import { Form } from "../ui/form";
import { Notice } from "../ui/states";
import { Copy } from "./copy";
import { words } from "./words";

type Scope = CreateApiKey["scopes"][number];
export const SCOPES: readonly Scope[] = ["read", "chat", "account"];
const DAYS = ["30", "90", "365", "0"] as const; // 0: without an end

export function NewKey({ onClose }: { onClose: () => void }) {
  const t = words();
  const [made, setMade] = useState<NewApiKey | null>(null);
  return (
    <Dialog title={made ? made.name : t.newKey} onClose={onClose}>
      {made ? <Made apiKey={made} onClose={onClose} /> : <Make onMade={setMade} />}
    </Dialog>
  );
}

function Make({ onMade }: { onMade: (key: NewApiKey) => void }) {
  const t = words();
  const [days, setDays] = useState<(typeof DAYS)[number]>("90");
  const [scopes, setScopes] = useState<ReadonlySet<Scope>>(new Set<Scope>(["read", "chat"]));
  const choose = (scope: Scope, isChosen: boolean) => {
    const chosen = new Set(scopes);
    if (isChosen) chosen.add(scope);
    else chosen.delete(scope);
    setScopes(chosen);
  };
  const make = async ({ name }: Record<string, string>) => {
    if (!scopes.size) throw new ChatError("invalid_request", t.noScope);
    const body: CreateApiKey = { name: name!, scopes: SCOPES.filter((scope) => scopes.has(scope)) };
    if (days !== "0") body.expires_at = new Date(Date.now() + Number(days) * 86_400_000).toISOString();
    onMade(await send<NewApiKey>("POST", "user/api-keys", body));
  };
  const spans: Record<(typeof DAYS)[number], string> = { 30: t.days(30), 90: t.days(90), 365: t.year, 0: t.forever };
  return (
    <Form onSubmit={make} submit={t.create} own={scopes.size ? {} : { invalid_request: t.noScope }}>
      {(wrong) => (
        <>
          <Field label={t.keyName} hint={t.keyNameHint} name="name" maxLength={100} autoComplete="off" autoFocus required wrong={wrong("name")} />
          <fieldset class="field">
            <legend class="label">{t.scopes}</legend>
            {SCOPES.map((scope) => (
              <label key={scope} class="choice">
                <input type="checkbox" checked={scopes.has(scope)} onChange={(event) => choose(scope, event.currentTarget.checked)} />
                <span><strong>{t[scope]}</strong> <span class="small soft">{t[`${scope}Text`]}</span></span>
              </label>
            ))}
          </fieldset>
          <Select label={t.expires} value={days} options={DAYS.map((one) => [one, spans[one]] as const)} onChoose={setDays} />
        </>
      )}
    </Form>
  );
}

/** A first request that the key may make. */
function example({ key, scopes }: NewApiKey): string {
  if (!scopes.includes("chat")) return `curl ${server}/api/v1/${scopes.includes("read") ? "user/profile" : "user/api-keys"} \\\n  -H 'Authorization: Bearer ${key}'`;
  return `curl ${server}/api/v1/chat/message \\\n  -H 'Authorization: Bearer ${key}' \\\n  -H 'Content-Type: application/json' \\\n  -d '{"content": "Hello!", "stream": false}'`;
}

function Made({ apiKey, onClose }: { apiKey: NewApiKey; onClose: () => void }) {
  const t = words();
  return (
    <>
      <Notice kind="warn">{t.keyOnce}</Notice>
      <Copy text={apiKey.key} />
      <h3>{t.tryIt}</h3>
      <Copy text={example(apiKey)} isBlock />
      <div><Button kind="primary" onClick={onClose}>{t.done}</Button></div>
    </>
  );
}
