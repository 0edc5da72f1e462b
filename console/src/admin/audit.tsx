// The record of what operators did, by pages; of one user, if the address names one.
import type { Action, AdminUsers } from "@ai-chat-platform/client/wire";
import type { ChatError } from "@ai-chat-platform/client";
import { useRef, useState } from "preact/hooks";
import { get, withQuery } from "../platform/api";
import { open, parameters, to } from "../platform/route";
import { Button } from "../ui/button";
import { Field } from "../ui/field";
import { useResource } from "../ui/resource";
import { Empty, Problem, Waiting } from "../ui/states";
import { AuditTable } from "./audit_table";
import { words } from "./audit_words";
import { usePages } from "./pages";
import { words as shared } from "./words";

const HOME = to("admin", "audit");
const PAGE = 50;
const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

export function Audit() {
  const t = words();
  const userId = parameters.value.get("user_id");
  const pages = usePages<Action, number>((before) => get("admin/audit", { user_id: userId, limit: PAGE, before }), [userId]);
  return (
    <>
      <p class="soft">{t.intro}</p>
      <Filter userId={userId} />
      {pages.error && <Problem error={pages.error} onRetry={pages.reload} />}
      {!pages.items && pages.isLoading && <Waiting />}
      {pages.items?.length === 0 && !pages.isLoading && <Empty icon="admin" title={t.empty}>{t.emptyMore}</Empty>}
      {pages.items && pages.items.length > 0 && (
        <>
          <p class="only-read" role="status">{t.entries(pages.items.length)}</p>
          <AuditTable actions={pages.items} />
        </>
      )}
      {pages.hasMore && <div><Button busy={pages.isLoading} onClick={pages.more}>{shared().more}</Button></div>}
    </>
  );
}

/** Finds the user by what is typed; several are offered. */
function Filter({ userId }: { userId: string | null }) {
  const t = words();
  const [text, setText] = useState("");
  const [offered, setOffered] = useState<AdminUsers["data"] | null>(null);
  const [error, setError] = useState<ChatError | null>(null);
  const shown = useResource(async () => (userId ? ((await get<AdminUsers>("admin/users", { query: userId })).data[0] ?? null) : null), [userId]);
  const wanted = useRef(""); // an answer to what was typed before is ignored
  const choose = (id: string) => open(withQuery(HOME, { user_id: id }));
  const find = async () => {
    const typed = (wanted.current = text.trim());
    setError(null);
    if (!typed) return;
    if (UUID.test(typed)) return choose(typed.toLowerCase());
    try {
      const { data } = await get<AdminUsers>("admin/users", { query: typed, limit: 8 });
      if (wanted.current !== typed) return;
      if (data.length === 1) choose(data[0]!.id);
      else setOffered(data);
    } catch (cause) {
      if (wanted.current === typed) setError(cause as ChatError);
    }
  };
  if (userId) {
    return (
      <div class="row">
        <strong>{t.filtered(shown.data?.email ?? userId)}</strong>
        <a class="button small" href={HOME}>{t.everything}</a>
      </div>
    );
  }
  return (
    <form class="stack tight" role="search" onSubmit={(event) => (event.preventDefault(), void find())}>
      <div class="filters">
        <Field label={t.filter} hint={t.filterHint} type="search" maxLength={254} spellcheck={false} autoComplete="off" value={text} onInput={(event) => ((wanted.current = ""), setText(event.currentTarget.value), setOffered(null))} />
        <Button type="submit" icon="search" label={t.filter} />
      </div>
      {error && <Problem error={error} />}
      <div role="status">
        {offered && (offered.length === 0 ? <p class="soft">{t.noSuchUser}</p> : (
          <ul class="offers">{offered.map((user) => <li key={user.id}><button type="button" class="button small" onClick={() => choose(user.id)}><bdi>{user.email}</bdi></button></li>)}</ul>
        ))}
      </div>
    </form>
  );
}
