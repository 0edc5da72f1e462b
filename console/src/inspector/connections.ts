// What the record of the wire says about each connection: where it began, what the server replayed, how it ended.
import type { WireEntry } from "../platform/wire_entry";

export interface ConnectionRecord {
  id: string;
  openedAt: number;
  /** The cursor (`epoch:seq`) that the page named; null: none. */
  after: string | null;
  /** From `ready`; null until it has come. */
  ready: { resumed: boolean; cursor: string } | null;
  /** Events that had happened before this connection was opened. */
  replayed: number;
  /** All events; joined ones are counted one by one. */
  events: number;
  lastSeq: number | null;
  end: { at: number; code: number | null; isCut: boolean } | null;
}

/** The connections in the record, the newest first. The oldest one may have lost its beginning. */
export function connectionsOf(entries: readonly WireEntry[]): ConnectionRecord[] {
  const found: ConnectionRecord[] = [];
  for (const entry of entries) {
    const last = found.at(-1);
    if (entry.direction === "note" && entry.type === "open") {
      const { after } = JSON.parse(entry.text) as { after: string | null };
      found.push({ id: entry.id, openedAt: entry.at, after, ready: null, replayed: 0, events: 0, lastSeq: null, end: null });
    } else if (last) observe(last, entry);
  }
  return found.reverse();
}

function observe(connection: ConnectionRecord, entry: WireEntry): void {
  if (entry.direction === "note") {
    const { code } = JSON.parse(entry.text) as { code?: number };
    connection.end ??= { at: entry.at, code: code ?? null, isCut: entry.type === "cut" };
  } else if (entry.direction === "in" && entry.type === "ready") {
    const { resumed, cursor } = JSON.parse(entry.text) as { resumed: boolean; cursor: string };
    connection.ready ??= { resumed, cursor };
  } else if (entry.direction === "in" && entry.seq !== null) {
    const joined = entry.first === null ? 1 : entry.seq - entry.first + 1;
    connection.events += joined;
    connection.lastSeq = entry.seq;
    if (entry.happened !== null && entry.happened < connection.openedAt) connection.replayed += joined;
  }
}
