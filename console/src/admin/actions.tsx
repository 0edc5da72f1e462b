// What an operator can do to a user: each action with one sentence, a question where it hurts, and its result.
import type { ChatError } from "@ai-chat-platform/client";
import type { AdminUserDetails } from "@ai-chat-platform/client/wire";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { download, send } from "../platform/api";
import { open, to } from "../platform/route";
import { user as self } from "../platform/session";
import { Button } from "../ui/button";
import { Notice, Problem } from "../ui/states";
import { announce } from "../ui/toast";
import { words } from "./action_words";
import { AdminQuestion, BlockQuestion, DeleteQuestion, RotateQuestion } from "./questions";

type Name = "block" | "admin" | "rotate" | "repair" | "export" | "delete";

export function Actions({ user, onChange }: { user: AdminUserDetails; onChange: () => void }) {
  const t = words();
  const [asks, setAsks] = useState<Name | null>(null);
  const [running, setRunning] = useState<Name | null>(null);
  const [failed, setFailed] = useState<{ name: Name; error: ChatError } | null>(null);
  const path = `admin/users/${user.id}`;
  const isSelf = user.id === self.value?.id;
  const isBlocked = user.agent_status === "blocked";
  const ask = (name: Name) => () => (setFailed(null), setAsks(name));

  /** For the questions: throws what went wrong, so that they can show it. */
  const act = async (work: () => Promise<string>) => {
    announce(await work());
    setAsks(null);
    onChange();
  };
  const run = (name: Name, work: () => Promise<string>) => async () => {
    setRunning(name);
    setFailed(null);
    try {
      await act(work);
    } catch (error) {
      setFailed({ name, error: error as ChatError });
    }
    setRunning(null);
  };
  const row = (name: Name, text: string, button: ComponentChildren, own = false) => (
    <li>
      <div class="grow">
        <p>{text}</p>
        {own && isSelf && <p class="small soft">{t.ownAccount}</p>}
        {running === name && <p class="small soft" role="status">{t.working}</p>}
        {failed?.name === name && <Problem error={failed.error} />}
      </div>
      {button}
    </li>
  );
  const unblock = run("block", async () => (await send("POST", `${path}/unblock`), t.unblocked(user.email)));
  const repair = run("repair", async () => (await send("POST", `${path}/repair`), t.repaired));
  const save = run("export", async () => (await download(`${path}/export`, `user-${user.id}.json`, "application/json"), t.exported));
  if (user.agent_status === "deleting") return <section class="card stack actions-card"><h2>{t.title}</h2><Notice>{t.alreadyDeleting}</Notice></section>;
  return (
    <section class="card stack actions-card">
      <h2>{t.title}</h2>
      <ul class="actions">
        {isBlocked
          ? row("block", t.unblockText, <Button kind="primary" busy={running === "block"} onClick={() => void unblock()}>{t.unblock}</Button>)
          : row("block", t.blockText, <Button kind="danger" disabled={isSelf} onClick={ask("block")}>{t.block}</Button>, true)}
        {row("repair", t.repairText, <Button icon="tool" busy={running === "repair"} onClick={() => void repair()}>{t.repair}</Button>)}
        {row("rotate", t.rotateText, <Button onClick={ask("rotate")}>{t.rotate}</Button>)}
        {row("export", t.exportText, <Button busy={running === "export"} onClick={() => void save()}>{t.export}</Button>)}
        {user.is_admin
          ? row("admin", t.removeAdminText, <Button disabled={isSelf} onClick={ask("admin")}>{t.removeAdmin}</Button>, true)
          : row("admin", t.makeAdminText, <Button onClick={ask("admin")}>{t.makeAdmin}</Button>)}
        {row("delete", t.deleteText, <Button kind="danger" icon="trash" disabled={isSelf} onClick={ask("delete")}>{t.delete}</Button>, true)}
      </ul>
      {asks === "block" && <BlockQuestion user={user} onClose={() => setAsks(null)} onAnswer={(reason) => act(async () => (await send("POST", `${path}/block`, reason ? { reason } : {}), t.blocked(user.email)))} />}
      {asks === "admin" && <AdminQuestion user={user} onClose={() => setAsks(null)} onAnswer={() => act(async () => (await send("POST", `${path}/admin`, { is_admin: !user.is_admin }), user.is_admin ? t.isNoAdmin(user.email) : t.isAdmin(user.email)))} />}
      {asks === "rotate" && <RotateQuestion onClose={() => setAsks(null)} onAnswer={(atOnce) => act(async () => (await send("POST", `${path}/rotate-key`, { at_once: atOnce }), t.rotated))} />}
      {asks === "delete" && (
        <DeleteQuestion
          user={user}
          onClose={() => setAsks(null)}
          onAnswer={async () => {
            const answer = await send<{ status: string } | null>("DELETE", path);
            announce(answer ? t.deletingNow : t.deleted(user.email));
            if (answer) return setAsks(null), onChange();
            open(to("admin", "users"));
          }}
        />
      )}
    </section>
  );
}
