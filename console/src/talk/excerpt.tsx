// A part of the conversation far above what is loaded: a hit of the search with what was said around it.
import type { ChatError } from "@ai-chat-platform/client";
import { withPage } from "@ai-chat-platform/client/history";
import { INITIAL } from "@ai-chat-platform/client/state";
import type { History, Message } from "@ai-chat-platform/client/wire";
import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../platform/api";
import { Button } from "../ui/button";
import { Empty, Problem, Waiting } from "../ui/states";
import { foundIn, type Hit, useHit } from "./hit";
import { useKeptPlace } from "./scroll";
import { TurnView } from "./turn";
import { words } from "./words";

const PAGE = 30;

/** Newest first, as the server sends them. */
interface Part {
  data: readonly Message[];
  hasOlder: boolean;
  hasNewer: boolean;
}

const page = (query: { before?: string | null | undefined; after?: string | null | undefined }) => get<History>("chat/history", { include: "steps", limit: PAGE, ...query });

async function around({ message }: Hit): Promise<Part> {
  const newer = await page({ after: message.cursor });
  const older = await page({ before: newer.data.at(-1)?.cursor }); // with the hit itself
  return { data: [...newer.data, ...older.data], hasOlder: older.has_more, hasNewer: newer.has_more };
}

async function extended(part: Part, way: "older" | "newer"): Promise<Part> {
  if (way === "older") {
    const { data, has_more } = await page({ before: part.data.at(-1)?.cursor });
    return { ...part, data: [...part.data, ...data], hasOlder: has_more };
  }
  const { data, has_more } = await page({ after: part.data[0]?.cursor });
  return { ...part, data: [...data, ...part.data], hasNewer: has_more };
}

export function Excerpt({ hit, onBack }: { hit: Hit; onBack: () => void }) {
  const t = words();
  const box = useRef<HTMLDivElement>(null);
  const [part, setPart] = useState<Part | null>(null);
  const [error, setError] = useState<ChatError | null>(null);
  const [isLoading, setLoading] = useState(false);
  const latest = useRef(0); // answers for another hit are ignored
  const load = (next: () => Promise<Part>) => {
    const mine = ++latest.current;
    const ifWanted = <T,>(show: (value: T) => void) => (value: T) => {
      if (mine === latest.current) show(value);
    };
    setLoading(true);
    setError(null);
    next().then(ifWanted(setPart), ifWanted(setError)).finally(() => ifWanted(setLoading)(false));
  };
  const begin = () => load(() => around(hit));
  useEffect(() => {
    setPart(null);
    begin();
  }, [hit]);
  const isThere = part?.data.some(({ id }) => id === hit.message.id) ?? false;
  useHit(box, hit, isThere);
  const { turns } = withPage(INITIAL, { data: [...(part?.data ?? [])], has_more: false, next_cursor: null });
  useKeptPlace(box, turns[0]?.id ?? undefined);
  const edge = (way: "older" | "newer", label: string) => <div class="top"><Button small busy={isLoading} onClick={() => load(() => extended(part!, way))}>{label}</Button></div>;
  return (
    <div class="log-frame excerpt">
      <p class="excerpt-head row apart" role="status">
        <span class="soft">{t.excerpt}</span>
        <Button small icon="down" onClick={onBack}>{t.backToNewest}</Button>
      </p>
      <div class="log" ref={box} role="group" aria-label={t.excerpt} tabIndex={0}>
        <div class="turns">
          {error && <Problem error={error} onRetry={begin} />}
          {!part && isLoading && <Waiting />}
          {part && !isThere && <Empty icon="search" title={t.gone} />}
          {part?.hasOlder && edge("older", t.older)}
          {turns.map((turn) => <TurnView key={turn.id} turn={turn} isPast found={foundIn(hit, turn.id)} />)}
          {part?.hasNewer && edge("newer", t.newer)}
        </div>
      </div>
    </div>
  );
}
