// Search in the whole conversation, as far back as it goes.
import type { ChatError } from "@ai-chat-platform/client";
import type { History, Message } from "@ai-chat-platform/client/wire";
import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../platform/api";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { Empty, Problem, Waiting } from "../ui/states";
import type { Hit } from "./hit";
import { excerptOf, marked, patternOf } from "./marks";
import { When } from "./when";
import { words } from "./words";

const PAUSE = 250; // ms after the last key
const LONGEST = 200; // characters that the server takes
const PAGE = 20;

interface Results {
  query: string;
  data: readonly Message[];
  next: string | null;
}

export function Search({ query, onQuery, onOpen, onClose }: { query: string; onQuery: (query: string) => void; onOpen: (hit: Hit) => void; onClose: () => void }) {
  const t = words();
  const { results, error, isLoading, more, again } = useSearch(query);
  const list = useRef<HTMLUListElement>(null);
  const move = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const hits = [...(list.current?.querySelectorAll<HTMLElement>(".hit") ?? [])];
    if (!step || !hits.length) return;
    event.preventDefault();
    const next = hits.indexOf(document.activeElement as HTMLElement) + step;
    (hits[next] ?? document.querySelector<HTMLElement>(".search input"))?.focus();
  };
  return (
    <Dialog title={t.search} onClose={onClose}>
      <div class="search stack" onKeyDown={move}>
        <input
          class="input"
          type="search"
          dir="auto"
          autofocus
          maxLength={LONGEST}
          aria-label={t.search}
          aria-describedby="search-hint"
          value={query}
          onInput={(event) => onQuery(event.currentTarget.value)}
        />
        <p class="small soft" id="search-hint" role="status">{results ? t.found(results.data.length, results.next !== null) : t.searchHint}</p>
        {error && <Problem error={error} onRetry={again} />}
        {!results && isLoading && <Waiting />}
        {results && !results.data.length && <Empty icon="search" title={t.searchEmpty}><span>{t.searchTry}</span></Empty>}
        {results && (
          <ul class="hits" ref={list}>
            {results.data.map((message) => (
              <li key={message.id}><HitButton message={message} query={results.query} onOpen={onOpen} /></li>
            ))}
          </ul>
        )}
        {results?.next && <Button busy={isLoading} onClick={more}>{t.moreHits}</Button>}
      </div>
    </Dialog>
  );
}

function HitButton({ message, query, onOpen }: { message: Message; query: string; onOpen: (hit: Hit) => void }) {
  const t = words();
  const pattern = patternOf(query);
  return (
    <button type="button" class="hit" onClick={() => onOpen({ message, query })}>
      <span class="row apart small soft"><span>{message.role === "user" ? t.you : t.agent}</span><When at={message.created_at} /></span>
      <span dir="auto">{marked(excerptOf(message.content, pattern), pattern).map(({ text, isMarked }) => (isMarked ? <mark>{text}</mark> : text))}</span>
    </button>
  );
}

/** The hits of a query, some moments after it was written. Those of the last one stay until the new ones are here. */
function useSearch(given: string) {
  const query = given.trim();
  const [state, setState] = useState<{ results: Results | null; error: ChatError | null; isLoading: boolean }>({ results: null, error: null, isLoading: false });
  const latest = useRef(0);
  const read = (before: readonly Message[], cursor: string | null) => {
    const mine = ++latest.current;
    setState((shown) => ({ ...shown, isLoading: true, error: null }));
    get<History>("chat/history", { query, limit: PAGE, before: cursor }).then(
      ({ data, has_more, next_cursor }) =>
        mine === latest.current && setState({ results: { query, data: [...before, ...data], next: has_more ? next_cursor : null }, error: null, isLoading: false }),
      (error: ChatError) => mine === latest.current && setState((shown) => ({ ...shown, error, isLoading: false })),
    );
  };
  useEffect(() => {
    latest.current++;
    if (!patternOf(query)) return setState({ results: null, error: null, isLoading: false });
    const timer = setTimeout(() => read([], null), PAUSE);
    return () => clearTimeout(timer);
  }, [query]);
  return { ...state, more: () => read(state.results?.data ?? [], state.results?.next ?? null), again: () => read([], null) };
}
