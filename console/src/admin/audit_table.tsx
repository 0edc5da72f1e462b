// Entries of the audit. Each can be unfolded to everything that is stored about it.
import type { Action } from "@ai-chat-platform/client/wire";
import { ago, moment } from "../platform/format";
import { to } from "../platform/route";
import { user as self } from "../platform/session";
import { actionName, detailsText } from "./action_text";
import { words } from "./audit_words";
import { words as shared } from "./words";

/** `about`: the user whose page this is on, who is not named in each row if all are about them. */
export function AuditTable({ actions, about }: { actions: readonly Action[]; about?: string }) {
  const t = words();
  const namesUsers = actions.some(({ user_id }) => user_id !== about);
  const columns = [t.when, t.who, t.what, ...(namesUsers ? [t.whom] : []), t.outcome];
  return (
    <table class="records" role="table">
      <thead role="rowgroup"><tr role="row">{columns.map((name) => <th key={name} role="columnheader" scope="col">{name}</th>)}</tr></thead>
      <tbody role="rowgroup">
        {actions.map((action) => (
          <tr key={action.id} role="row">
            <td role="cell" data-label={t.when}><time class="number" dateTime={action.at} title={ago(action.at)}>{moment(action.at)}</time></td>
            <td role="cell" data-label={t.who}>{action.actor_id ? <Person id={action.actor_id} email={action.actor_email} /> : <span>{t.command} <code>{action.source}</code></span>}</td>
            <td role="cell" class="main"><What action={action} /></td>
            {namesUsers && <td role="cell" data-label={t.whom}>{action.user_id && <Person id={action.user_id} email={action.user_email} />}</td>}
            <td role="cell" data-label={t.outcome}><Outcome action={action} /></td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Person({ id, email }: { id: string; email: string | null }) {
  if (id === self.value?.id) return <a href={to("admin", "users", id)}>{shared().you}</a>;
  if (email) return <a class="person" title={email} href={to("admin", "users", id)}><bdi>{email}</bdi></a>;
  return <span title={id}>{words().deletedUser} <code>{id.slice(-8)}</code></span>;
}

function What({ action }: { action: Action }) {
  const t = words();
  const text = detailsText(action.details);
  return (
    <details class="entry">
      <summary>
        <strong>{actionName(action.action)}</strong>
        {text && <bdi class="small soft"> {text}</bdi>}
      </summary>
      <dl class="facts small">
        <dt>{t.entry}</dt><dd>{action.id} · <code>{action.action}</code></dd>
        <dt>{t.source}</dt><dd><code>{action.source}</code></dd>
        {action.user_id && <><dt>{t.whom}</dt><dd><code>{action.user_id}</code></dd></>}
        {action.actor_id && <><dt>{t.who}</dt><dd><code>{action.actor_id}</code></dd></>}
        {action.reason && <><dt>{t.outcome}</dt><dd>{action.reason}</dd></>}
        {action.ended_at && <><dt>{t.ended}</dt><dd>{moment(action.ended_at)}</dd></>}
        <dt>{t.details}</dt><dd><code>{JSON.stringify(action.details)}</code></dd>
      </dl>
    </details>
  );
}

function Outcome({ action }: { action: Action }) {
  const t = words();
  if (action.outcome === "done") return <span class="badge good">{t.done}</span>;
  if (action.outcome === null) return <><span class="badge warn">{t.unknown}</span><div class="small soft why">{t.unknownMore}</div></>;
  return <><span class="badge bad">{t.failed}</span><div class="small soft why">{action.reason}</div></>;
}
