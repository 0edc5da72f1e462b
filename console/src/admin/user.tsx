// One user: what is known, what was spent, and everything an operator can do.
import type { Action, Actions as ActionsPage, AdminUserDetails } from "@ai-chat-platform/client/wire";
import { useEffect, useState } from "preact/hooks";
import { get, withQuery } from "../platform/api";
import { ago, count, moment, money } from "../platform/format";
import { to } from "../platform/route";
import { Button } from "../ui/button";
import { copy } from "../ui/clipboard";
import { useResource } from "../ui/resource";
import { Empty, Loaded, Notice } from "../ui/states";
import { Actions } from "./actions";
import { AuditTable } from "./audit_table";
import { RoleBadges, StatusBadge } from "./badges";
import { BudgetCard } from "./budget_card";
import { words } from "./user_words";
import { words as shared } from "./words";

const SHOWN_ACTIONS = 10;
const POLL_MS = 3_000; // while the agent is made, or the account deleted

export function UserPage({ id }: { id: string }) {
  const t = words();
  const user = useResource(() => get<AdminUserDetails>(`admin/users/${encodeURIComponent(id)}`), [id]);
  const [changes, setChanges] = useState(0);
  const audit = useResource(() => get<ActionsPage>("admin/audit", { user_id: id, limit: SHOWN_ACTIONS }), [id, changes]);
  const onChange = () => {
    user.reload();
    setChanges((n) => n + 1);
  };
  const status = user.data?.agent_status;
  const isChanging = (status === "provisioning" || status === "deleting") && !user.error;
  useEffect(() => {
    if (!isChanging) return;
    const timer = setInterval(user.reload, POLL_MS);
    return () => clearInterval(timer);
  }, [isChanging, user.reload]);
  const isGone = user.error && (user.error.code === "not_found" || user.error.code === "invalid_request");
  return (
    <>
      <a class="back" href={to("admin", "users")}>← {t.all}</a>
      {isGone ? <Empty icon="account" title={t.gone}><a href={withQuery(to("admin", "audit"), { user_id: id })}>{t.wholeAudit}</a></Empty> : (
        <Loaded from={user}>
          {(found) => (
            <>
              <Heading user={found} onRefresh={onChange} isLoading={user.isLoading} />
              <div class="columns">
                <BudgetCard user={found} onChange={onChange} />
                <Actions user={found} onChange={onChange} />
                <Activity user={found} />
              </div>
              <Errors user={found} />
              <section class="card stack">
                <div class="row apart">
                  <h2>{t.history}</h2>
                  <a href={withQuery(to("admin", "audit"), { user_id: id })}>{t.wholeAudit}</a>
                </div>
                <Loaded from={audit}>{({ data }) => (data.length ? <AuditTable actions={data as Action[]} about={id} /> : <p class="soft">{shared().none}</p>)}</Loaded>
              </section>
            </>
          )}
        </Loaded>
      )}
    </>
  );
}

function Heading({ user, onRefresh, isLoading }: { user: AdminUserDetails; onRefresh: () => void; isLoading: boolean }) {
  const t = words();
  const sentences = { active: null, provisioning: t.statusProvisioning, failed: t.statusFailed, blocked: t.statusBlocked, deleting: t.statusDeleting };
  const sentence = sentences[user.agent_status];
  return (
    <>
      <div class="row apart">
        <div class="grow">
          <h2 class="who"><bdi>{user.email || user.id}</bdi></h2>
          <div class="row">{user.name && <bdi class="soft">{user.name}</bdi>}<StatusBadge status={user.agent_status} /><RoleBadges user={user} /></div>
        </div>
        <Button icon="retry" label={shared().refresh} busy={isLoading} onClick={onRefresh} />
      </div>
      {sentence && (
        <Notice kind={user.agent_status === "provisioning" ? "warn" : "bad"}>
          {sentence}
          {user.status_reason && <div><bdi>{t.because(user.status_reason)}</bdi></div>}
        </Notice>
      )}
    </>
  );
}

function Activity({ user }: { user: AdminUserDetails }) {
  const t = words();
  return (
    <section class="card stack activity">
      <h2>{t.activity}</h2>
      <dl class="facts">
        <dt>{t.lastMessage}</dt>
        <dd>{user.last_message_at ? <time dateTime={user.last_message_at} title={moment(user.last_message_at)}>{ago(user.last_message_at)}</time> : t.never}</dd>
        <dt>{t.connections}</dt><dd>{count(user.connections)}</dd>
        <dt>{t.openTurns}</dt><dd>{count(user.open_turns)}</dd>
        <dt>{t.messages}</dt><dd>{count(user.total.messages)}</dd>
        <dt>{t.allTokens}</dt><dd>{count(user.total.tokens)}</dd>
        <dt>{t.cost}</dt><dd>{money(user.total.cost)}</dd>
        <dt>{t.registered}</dt><dd>{moment(user.created_at)}</dd>
        <dt>{t.id}</dt><dd><Id value={user.id} label={`${shared().copy}: ${t.id}`} /></dd>
        <dt>{t.agent}</dt><dd>{user.agent_id ? <Id value={user.agent_id} label={`${shared().copy}: ${t.agent}`} /> : t.noAgent}</dd>
      </dl>
    </section>
  );
}

function Errors({ user }: { user: AdminUserDetails }) {
  const t = words();
  return (
    <section class="card stack">
      <h2>{t.errors}</h2>
      {user.errors.length === 0 ? <p class="soft">{t.noErrors}</p> : (
        <table class="records" role="table">
          <thead role="rowgroup"><tr role="row">{[t.when, t.what, t.turn].map((name) => <th key={name} role="columnheader" scope="col">{name}</th>)}</tr></thead>
          <tbody role="rowgroup">
            {user.errors.map((error) => (
              <tr key={error.turn_id + error.at} role="row">
                <td role="cell" data-label={t.when}><time class="number" dateTime={error.at} title={ago(error.at)}>{moment(error.at)}</time></td>
                <td role="cell" class="main"><code>{error.code}</code><div>{error.message}</div></td>
                <td role="cell" data-label={t.turn}><Id value={error.turn_id} label={t.copyTurn} /></td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

function Id({ value, label }: { value: string; label: string }) {
  return (
    <span class="id">
      <code>{value}</code>
      <Button kind="plain" small icon="copy" label={label} onClick={() => void copy(value)} />
    </span>
  );
}
