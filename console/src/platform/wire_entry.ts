// One entry of the inspector's record of the wire.

export interface WireEntry {
  /** Unique in this browser. */
  id: string;
  /** Milliseconds, by this device's clock. */
  at: number;
  /** `note`: the connection itself, not a frame. */
  direction: "in" | "out" | "note";
  type: string;
  /** Of an event: its number, the first one that it joins, when it happened. */
  seq: number | null;
  first: number | null;
  happened: number | null;
  /** In UTF-8. */
  bytes: number;
  /** JSON. */
  text: string;
}

/** A frame as an entry of the record. */
export function entryOf(direction: WireEntry["direction"], type: string | null, text: string, at: number, id: string): WireEntry {
  const frame = JSON.parse(text) as { type?: string; token?: string; seq?: number | null; first_seq?: number | null; at?: string | null };
  const bytes = new TextEncoder().encode(text).length;
  const happened = frame.seq != null && frame.at ? Date.parse(frame.at) : null;
  const shown = frame.token === undefined ? text : JSON.stringify({ ...frame, token: "…" });
  return { id, at, direction, type: type ?? frame.type ?? "?", seq: frame.seq ?? null, first: frame.first_seq ?? null, happened, bytes, text: shown };
}

/** The record of another tab before what this tab has heard of it meanwhile. */
export function withEarlier(entries: readonly WireEntry[], earlier: readonly WireEntry[]): readonly WireEntry[] {
  const known = new Set(entries.map(({ id }) => id));
  return [...earlier.filter(({ id }) => !known.has(id)), ...entries];
}
