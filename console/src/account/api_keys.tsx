// Keys with which programs use the account.
import type { ChatError } from "@ai-chat-platform/client";
import type { ApiKey, ApiKeys as Keys, SignIns } from "@ai-chat-platform/client/wire";
import { useState } from "preact/hooks";
import { get, send } from "../platform/api";
import { ago, day, moment } from "../platform/format";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { useResource } from "../ui/resource";
import { Empty, Loaded, Problem } from "../ui/states";
import { announce } from "../ui/toast";
import { NewKey, SCOPES } from "./new_key";
import { words } from "./words";

export function ApiKeys() {
  const t = words();
  const keys = useResource(async () => {
    const [{ data }, { connections }] = await Promise.all([get<Keys>("user/api-keys"), get<SignIns>("auth/sessions")]);
    return { data, used: new Set(connections.map(({ api_key_id }) => api_key_id)) };
  }, []);
  const [isMaking, setMaking] = useState(false);
  const [toRevoke, setToRevoke] = useState<ApiKey | null>(null);
  const button = <Button kind="primary" icon="plus" onClick={() => setMaking(true)}>{t.newKey}</Button>;
  return (
    <section class="card stack">
      <div class="row apart">
        <div class="grow">
          <h2>{t.keys}</h2>
          <p class="small soft">{t.keysText}</p>
        </div>
        {!!keys.data?.data.length && button}
      </div>
      <Loaded from={keys}>
        {({ data, used }) =>
          data.length ? (
            <ul class="list">
              {data.map((key) => <Key key={key.id} apiKey={key} isOpen={used.has(key.id)} onRevoke={() => setToRevoke(key)} />)}
            </ul>
          ) : (
            <Empty icon="key" title={t.noKeys}>
              <p>{t.noKeysText}</p>
              {button}
            </Empty>
          )
        }
      </Loaded>
      {isMaking && <NewKey onClose={() => (setMaking(false), keys.reload())} />}
      {toRevoke && <Revoke apiKey={toRevoke} onClose={() => (setToRevoke(null), keys.reload())} />}
    </section>
  );
}

function Key({ apiKey, isOpen, onRevoke }: { apiKey: ApiKey; isOpen: boolean; onRevoke: () => void }) {
  const t = words();
  const { name, prefix, scopes, created_at, last_used_at, expires_at } = apiKey;
  const isExpired = expires_at !== null && Date.parse(expires_at) < Date.now();
  return (
    <li class="row">
      <div class="grow stack tight">
        <div class="row">
          <strong dir="auto">{name}</strong>
          <code class="soft">{prefix}…</code>
          {isExpired && <span class="badge bad">{t.expired}</span>}
          {isOpen && <span class="badge good">{t.open}</span>}
        </div>
        <div class="row">{SCOPES.filter((scope) => scopes.includes(scope)).map((scope) => <span key={scope} class="badge">{t[scope]}</span>)}</div>
        <p class="small soft">
          <span title={moment(created_at)}>{t.created(ago(created_at))}</span>, {last_used_at ? t.lastUsed(ago(last_used_at)) : t.neverUsed}
          {!isExpired && <>, {expires_at ? t.expiresAt(day(expires_at)) : t.noExpiry}</>}
        </p>
      </div>
      <Button small kind="danger" icon="trash" label={t.revokeOne(name)} onClick={onRevoke} />
    </li>
  );
}

function Revoke({ apiKey, onClose }: { apiKey: ApiKey; onClose: () => void }) {
  const t = words();
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<ChatError | null>(null);
  const revoke = async () => {
    setBusy(true);
    try {
      await send("DELETE", `user/api-keys/${apiKey.id}`).catch((cause: ChatError) => { if (cause.code !== "not_found") throw cause; });
      announce(t.revoked);
      onClose();
    } catch (cause) {
      setError(cause as ChatError);
      setBusy(false);
    }
  };
  return (
    <Dialog title={t.revokeTitle} onClose={onClose}>
      <p>{t.revokeText(apiKey.name)}</p>
      {error && <Problem error={error} />}
      <div class="row">
        <Button kind="danger" busy={isBusy} onClick={() => void revoke()}>{t.revoke}</Button>
        <Button kind="plain" onClick={onClose}>{t.cancel}</Button>
      </div>
    </Dialog>
  );
}
