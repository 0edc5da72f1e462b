// The frames, the newest first: filtered by type, paused, copied, each unfolded to its JSON.
import { useMemo, useRef, useState } from "preact/hooks";
import type { VNode } from "preact";
import { count } from "../platform/format";
import type { WireEntry } from "../platform/wire_entry";
import { wire } from "../platform/wire_tap";
import { Button } from "../ui/button";
import { copy } from "../ui/clipboard";
import { Empty } from "../ui/states";
import { clock } from "./clock";
import { words } from "./words";

const MOST = 200; // rows; all are copied

export function Frames() {
  const t = words();
  const live = wire.value;
  const [paused, setPaused] = useState<readonly WireEntry[] | null>(null);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const entries = paused ?? live;
  const types = useMemo(() => typesOf(entries), [entries]);
  const shown = useMemo(() => entries.filter(({ type }) => !hidden.has(type)).reverse(), [entries, hidden]);
  const toggle = (type: string) => {
    const next = new Set(hidden);
    if (!next.delete(type)) next.add(type);
    setHidden(next);
  };
  const copyShown = () => {
    const lines = [...shown].reverse().map(({ at, direction, text }) => `${new Date(at).toISOString()} ${direction} ${text}`);
    void copy(lines.join("\n"), t.copied(lines.length));
  };
  const missed = paused ? live.length - 1 - live.indexOf(paused.at(-1)!) : 0;
  return (
    <section class="card stack" aria-label={t.frames}>
      <div class="row apart">
        <h2>{t.frames}</h2>
        <div class="row">
          <Button small icon={paused ? "play" : "pause"} aria-pressed={paused !== null} onClick={() => setPaused(paused ? null : live)}>{paused ? t.goOn : t.pause}</Button>
          <Button small icon="trash" disabled={!entries.length} onClick={() => (setPaused(null), (wire.value = []))}>{t.clear}</Button>
          <Button small icon="copy" disabled={!shown.length} onClick={copyShown}>{t.copy}</Button>
        </div>
      </div>
      {types.length > 0 && (
        <div class="row" role="group" aria-label={t.types}>
          {types.map(([type, amount]) => (
            <button key={type} type="button" class="chip" aria-pressed={!hidden.has(type)} onClick={() => toggle(type)}>
              {type} <span class="number">{count(amount)}</span>
            </button>
          ))}
        </div>
      )}
      {paused && missed > 0 && <p class="small soft">{t.paused(missed)}</p>}
      {entries.length === 0 ? (
        <Empty icon="wire" title={t.noFrames}><p>{t.noFramesText}</p></Empty>
      ) : shown.length === 0 ? (
        <p class="soft">{t.nothingChosen}</p>
      ) : (
        <Rows entries={shown.slice(0, MOST)} />
      )}
      {shown.length > MOST && <p class="small soft">{t.shown(MOST, shown.length)}</p>}
    </section>
  );
}

const typesOf = (entries: readonly WireEntry[]): [string, number][] => {
  const found = new Map<string, number>();
  for (const { type } of entries) found.set(type, (found.get(type) ?? 0) + 1);
  return [...found].sort(([a], [b]) => a.localeCompare(b));
};

const ARROWS = { in: "↓", out: "↑", note: "•" } as const;

/** Rows are made once: while a reply streams, only new ones cost time. */
function Rows({ entries }: { entries: readonly WireEntry[] }) {
  const t = words();
  const made = useRef({ words: t, rows: new WeakMap<WireEntry, VNode>() });
  if (made.current.words !== t) made.current = { words: t, rows: new WeakMap() };
  const row = (entry: WireEntry) => {
    const known = made.current.rows.get(entry);
    if (known) return known;
    const fresh = <Row key={entry.id} entry={entry} />;
    made.current.rows.set(entry, fresh);
    return fresh;
  };
  return <div class="frames">{entries.map(row)}</div>;
}

function Row({ entry: { at, direction, type, seq, first, bytes, text } }: { entry: WireEntry }) {
  const t = words();
  const [isOpen, setOpen] = useState(false);
  return (
    <details class="frame" data-direction={direction} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <span class="frame-time">{clock(at)}</span>
        <span class="frame-arrow" role="img" aria-label={t[direction]}>{ARROWS[direction]}</span>
        <span class="frame-type">{type}</span>
        <span class="frame-seq">{seq !== null && (first !== null ? `#${first}–${seq}` : `#${seq}`)}</span>
        <span class="frame-bytes">{t.bytes(count(bytes))}</span>
      </summary>
      {isOpen && <pre dir="ltr" tabIndex={0}>{JSON.stringify(JSON.parse(text), null, 2)}</pre>}
    </details>
  );
}
