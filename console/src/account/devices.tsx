// The user's sign-ins, one for each device, with what each has open.
import type { ChatError } from "@ai-chat-platform/client";
import type { SignIn, SignIns } from "@ai-chat-platform/client/wire";
import { useState } from "preact/hooks";
import { get, send } from "../platform/api";
import { ago, moment } from "../platform/format";
import { language } from "../platform/language";
import { auth } from "../platform/session";
import { Button } from "../ui/button";
import { useResource } from "../ui/resource";
import { Loaded, Problem } from "../ui/states";
import { announce } from "../ui/toast";
import { deviceName } from "./user_agent";
import { words } from "./words";

const inWords = (browser: string, system: string) => (language.value === "ru" ? `${browser}, ${system}` : `${browser} on ${system}`);

export function Devices() {
  const t = words();
  const signIns = useResource(() => get<SignIns>("auth/sessions"), []);
  const [busy, setBusy] = useState<string | null>(null);
  const [error, setError] = useState<ChatError | null>(null);
  /** `what` is a sign-in's id, or "others". One that has ended meanwhile is what was wanted. */
  const end = async (what: string) => {
    setBusy(what);
    setError(null);
    try {
      if (what === "others") await auth.signOutOthers();
      else await send("DELETE", `auth/sessions/${what}`).catch((cause: ChatError) => { if (cause.code !== "not_found") throw cause; });
      announce(t.signedOut);
      signIns.reload();
    } catch (cause) {
      setError(cause as ChatError);
    }
    setBusy(null);
  };
  return (
    <section class="card stack">
      <div>
        <h2>{t.devices}</h2>
        <p class="small soft">{t.devicesText}</p>
      </div>
      {error && <Problem error={error} />}
      <Loaded from={signIns}>
        {({ data, connections }) => (
          <>
            <ul class="list">
              {[...data].sort((one, other) => Number(other.current) - Number(one.current)).map((one) => (
                <Device
                  key={one.id}
                  signIn={one}
                  open={connections.filter(({ session_id }) => session_id === one.id).length}
                  isBusy={busy === one.id}
                  onEnd={() => void end(one.id)}
                />
              ))}
            </ul>
            {data.length > 1 ? (
              <div><Button kind="danger" busy={busy === "others"} onClick={() => void end("others")}>{t.signOutOthers}</Button></div>
            ) : (
              <p class="small soft">{t.noOthers}</p>
            )}
          </>
        )}
      </Loaded>
    </section>
  );
}

function Device({ signIn, open, isBusy, onEnd }: { signIn: SignIn; open: number; isBusy: boolean; onEnd: () => void }) {
  const t = words();
  const name = deviceName(signIn.user_agent, inWords) ?? t.unknownDevice;
  return (
    <li class="row">
      <div class="grow">
        <div class="row">
          <strong title={signIn.user_agent ?? undefined}>{name}</strong>
          {signIn.current && <span class="badge good">{t.thisDevice}</span>}
          {open > 0 && <span class="badge">{t.connections(open)}</span>}
        </div>
        <p class="small soft">
          <span title={moment(signIn.created_at)}>{t.signedIn(ago(signIn.created_at))}</span>
          {signIn.last_seen_at !== signIn.created_at && <>, <span title={moment(signIn.last_seen_at)}>{t.lastSeen(ago(signIn.last_seen_at))}</span></>}
          {signIn.address && <> · <span class="number">{signIn.address}</span></>}
        </p>
      </div>
      {!signIn.current && <Button small icon="out" busy={isBusy} label={t.signOutOne(name)} onClick={onEnd} />}
    </li>
  );
}
