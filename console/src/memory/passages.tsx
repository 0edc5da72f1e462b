// The archival memory: passages that the agent stored for later. Newest first by pages, or those that contain some words.
import type { Archival, Passage } from "@ai-chat-platform/client/wire";
import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../platform/api";
import { ago, moment } from "../platform/format";
import { Button } from "../ui/button";
import { Field } from "../ui/field";
import { useResource } from "../ui/resource";
import { Empty, Problem } from "../ui/states";
import { announce } from "../ui/toast";
import type { ChatError } from "@ai-chat-platform/client";
import { ForgetDialog, PassageDialog } from "./passage_dialogs";
import { added, PAGE, readMemory } from "./store";
import { words } from "./words";

const TYPING = 300; // milliseconds after the last key

type Asked = { kind: "add" } | { kind: "edit" | "forget"; passage: Passage } | null;

export function Passages({ newest }: { newest: Archival }) {
  const t = words();
  const [query, setQuery] = useState("");
  const typed = useSettled(query.trim());
  const found = useResource(async () => (typed ? get<Archival>("agent/memory/archival", { query: typed, limit: PAGE }) : null), [typed]);
  const first = (typed ? found.data : null) ?? newest; // until hits are here, what was shown before
  const older = useOlder(first, typed);
  const [asked, setAsked] = useState<Asked>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const isKnownEmpty = !typed && newest.data.length === 0;

  const changed = (word: string, { gone, instead }: { gone?: Passage; instead?: Passage } = {}) => {
    setAsked(null);
    announce(word);
    if (gone) older.replace(gone, instead);
    if (typed) found.reload();
    void readMemory({ isOwn: true }).then(() => {
      requestAnimationFrame(() => document.activeElement === document.body && heading.current?.focus()); // its button is gone
    });
  };

  return (
    <section class="card stack memory-archival" aria-labelledby="stored-for-later">
      <div class="stack tight">
        <div class="row apart">
          <h2 id="stored-for-later" tabIndex={-1} ref={heading}>{t.archival}</h2>
          <Button small icon="plus" onClick={() => setAsked({ kind: "add" })}>{t.add}</Button>
        </div>
        <p class="small soft">{t.archivalLead}</p>
      </div>
      {isKnownEmpty ? (
        <Empty icon="memory" title={t.nothingStored}><p>{t.nothingStoredText}</p></Empty>
      ) : (
        <>
          <Field label={t.search} type="search" value={query} maxLength={200} onInput={(event) => setQuery(event.currentTarget.value)} />
          {typed && found.error && <Problem error={found.error} onRetry={found.reload} />}
          <ul class="passages" aria-busy={typed !== "" && found.isLoading}>
            {older.all.map((passage) => (
              <li key={passage.id} data-changed={added.value.has(passage.id)}>
                <p class="memory-text" dir="auto">{passage.text}</p>
                <div class="row apart">
                  <span class="row small soft">
                    {passage.created_at && <time dateTime={passage.created_at} title={moment(passage.created_at)}>{ago(passage.created_at)}</time>}
                    {added.value.has(passage.id) && <span class="badge good">{t.isNew}</span>}
                  </span>
                  <span class="row">
                    <Button kind="plain" small icon="edit" label={t.edit} onClick={() => setAsked({ kind: "edit", passage })} />
                    <Button kind="plain" small icon="trash" label={t.forget} onClick={() => setAsked({ kind: "forget", passage })} />
                  </span>
                </div>
              </li>
            ))}
          </ul>
          {typed && !found.isLoading && older.all.length === 0 && <p class="soft">{t.nothingFound(typed)}</p>}
          {older.error && <Problem error={older.error} onRetry={older.load} />}
          {older.hasMore && <Button busy={older.isLoading} onClick={older.load}>{t.more}</Button>}
        </>
      )}
      {asked?.kind === "forget" && <ForgetDialog passage={asked.passage} onClose={() => setAsked(null)} onDone={() => changed(t.forgotten, { gone: asked.passage })} />}
      {(asked?.kind === "edit" || asked?.kind === "add") && (
        <PassageDialog
          passage={asked.kind === "edit" ? asked.passage : null}
          onClose={() => setAsked(null)}
          onDone={(instead) => changed(t.saved, asked.kind === "edit" ? { gone: asked.passage, instead } : {})}
        />
      )}
    </section>
  );
}

/** The first page and the older ones that were loaded after it. */
function useOlder(first: Archival | null, query: string) {
  const [older, setOlder] = useState<Archival | null>(null);
  const [isLoading, setLoading] = useState(false);
  const [error, setError] = useState<ChatError | null>(null);
  const asked = useRef(query);
  asked.current = query;
  useEffect(() => {
    setOlder(null);
    setError(null);
  }, [query]);
  const known = new Set(first?.data.map(({ id }) => id));
  const all = [...(first?.data ?? []), ...(older?.data ?? []).filter(({ id }) => !known.has(id))];
  const last = older ?? first;
  const load = () => {
    setLoading(true);
    setError(null);
    const isWanted = () => asked.current === query; // else it answers what was asked before
    get<Archival>("agent/memory/archival", { query, limit: PAGE, before: all.at(-1)?.id })
      .then(
        (page) => isWanted() && setOlder((before) => ({ ...page, data: [...(before?.data ?? []), ...page.data] })),
        (failure: ChatError) => isWanted() && setError(failure),
      )
      .finally(() => setLoading(false));
  };
  const replace = (gone: Passage, instead?: Passage) =>
    setOlder((pages) => pages && { ...pages, data: pages.data.flatMap((one) => (one.id === gone.id ? (instead ? [instead] : []) : [one])) });
  return { all, hasMore: last?.has_more ?? false, isLoading, error, load, replace };
}

/** The value once it has not changed for a moment. */
function useSettled(value: string): string {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), TYPING);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}
