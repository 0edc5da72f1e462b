// All users: found as one types, by status and role, the newest first.
import type { AdminUsers } from "@ai-chat-platform/client/wire";
import { useEffect, useRef, useState } from "preact/hooks";
import { get, withQuery } from "../platform/api";
import { ago, day, money } from "../platform/format";
import { isLeaving, open, parameters, to } from "../platform/route";
import { Button } from "../ui/button";
import { Field, Select } from "../ui/field";
import { Empty, Problem, Waiting } from "../ui/states";
import { RoleBadges, StatusBadge } from "./badges";
import { CreateUser } from "./create_user";
import { usePages } from "./pages";
import { words } from "./words";

const TYPING_MS = 250;
const PAGE = 50;
const STATUSES = ["active", "provisioning", "failed", "blocked", "deleting"] as const;

type User = AdminUsers["data"][number];
interface Filter {
  query: string;
  status: string;
  admins: string;
}

const HOME = to("admin", "users");
const read = (): Filter => {
  const given = parameters.value;
  return { query: given.get("query") ?? "", status: given.get("status") ?? "", admins: given.get("admins") ?? "" };
};

export function Users() {
  const t = words();
  const filter = read();
  const [creates, setCreates] = useState(false);
  const pages = usePages<User, string>((after) => get("admin/users", { ...filter, limit: PAGE, after }), [filter.query, filter.status, filter.admins]);
  const choose = (change: Partial<Filter>) => {
    if (!isLeaving()) open(withQuery(HOME, { ...read(), ...change }), { replace: true }); // else what was typed would lead back from a user just opened
  };
  const isFiltered = !!(filter.query || filter.status || filter.admins);
  return (
    <>
      <div class="filters" role="search">
        <Search value={filter.query} onChange={(query) => choose({ query })} />
        <Select
          label={t.status}
          value={filter.status}
          options={[["", t.anyStatus], ...STATUSES.map((status) => [status, t[status]] as const)]}
          onChoose={(status) => choose({ status })}
        />
        <Select label={t.role} value={filter.admins} options={[["", t.anyRole], ["true", t.onlyAdmins]]} onChoose={(admins) => choose({ admins })} />
        <Button kind="primary" icon="plus" onClick={() => setCreates(true)}>{t.newUser}</Button>
      </div>
      {pages.error && <Problem error={pages.error} onRetry={pages.reload} />}
      {!pages.items && pages.isLoading && <Waiting />}
      <p class="small soft" role="status">{pages.items && pages.items.length > 0 && t.found(pages.items.length, pages.hasMore)}</p>
      {pages.items?.length === 0 && !pages.isLoading && (
        <Empty icon={isFiltered ? "search" : "account"} title={isFiltered ? t.noMatch : t.nobody}>
          <span>{isFiltered ? t.noMatchMore : t.nobodyMore}</span>
          {isFiltered && <a class="button" href={HOME}>{t.clear}</a>}
        </Empty>
      )}
      {pages.items && pages.items.length > 0 && <Table users={pages.items} />}
      {pages.hasMore && <div><Button busy={pages.isLoading} onClick={pages.more}>{t.more}</Button></div>}
      {creates && <CreateUser onClose={() => setCreates(false)} />}
    </>
  );
}

/** Tells what was typed once the typing pauses. */
function Search({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  const [text, setText] = useState(value);
  const told = useRef(value);
  useEffect(() => {
    if (value !== told.current) setText((told.current = value)); // the address changed
  }, [value]);
  useEffect(() => {
    const typed = text.trim();
    if (typed === told.current) return;
    const timer = setTimeout(() => onChange((told.current = typed)), TYPING_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return <Field label={words().search} type="search" value={text} maxLength={254} spellcheck={false} autoComplete="off" onInput={(event) => setText(event.currentTarget.value)} />;
}

/** Becomes cards on narrow screens; the roles keep it a table for screen readers there. */
function Table({ users }: { users: User[] }) {
  const t = words();
  return (
    <table class="records" role="table">
      <thead role="rowgroup">
        <tr role="row">
          {[t.user, t.status, t.plan, t.spent, t.since].map((name) => <th key={name} role="columnheader" scope="col">{name}</th>)}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {users.map((user) => (
          <tr key={user.id} role="row">
            <td role="cell" class="main">
              <a class="name" href={to("admin", "users", user.id)}><bdi>{user.email || user.id}</bdi></a>
              <span class="row">{user.name && <bdi class="small soft">{user.name}</bdi>}<RoleBadges user={user} /></span>
            </td>
            <td role="cell" data-label={t.status}>
              <StatusBadge status={user.agent_status} />
              {user.status_reason && <div class="small soft clip" title={user.status_reason}>{user.status_reason}</div>}
            </td>
            <td role="cell" class="number" data-label={t.plan}>{user.plan ?? t.ownLimits}</td>
            <td role="cell" data-label={t.spent}><Spent user={user} /></td>
            <td role="cell" data-label={t.since} title={ago(user.created_at)}><time class="number" dateTime={user.created_at}>{day(user.created_at)}</time></td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Spent({ user }: { user: User }) {
  const t = words();
  const { budget, total } = user;
  return (
    <>
      {budget && <div class="number">{budget.limit === null ? money(budget.spent) : t.spentOf(money(budget.spent), money(budget.limit))}</div>}
      <div class={`number ${budget ? "small soft" : ""}`}>{budget ? t.total(money(total.cost)) : money(total.cost)}</div>
    </>
  );
}
