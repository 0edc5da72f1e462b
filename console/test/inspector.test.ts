// The record of the wire, and what it says about connections.
import { expect, test } from "vitest";
import { connectionsOf } from "../src/inspector/connections";
import { entryOf, type WireEntry, withEarlier } from "../src/platform/wire_entry";

let last = 0;
const entry = (direction: WireEntry["direction"], at: number, frame: Record<string, unknown>, type = String(frame.type)): WireEntry => ({
  id: String(++last),
  at,
  direction,
  type,
  seq: (frame.seq as number) ?? null,
  first: (frame.first_seq as number) ?? null,
  happened: frame.at === undefined ? null : (frame.at as number),
  bytes: 1,
  text: JSON.stringify(frame),
});
const opened = (at: number, after: string | null) => entry("note", at, { after }, "open");
const ready = (at: number, cursor: string, resumed: boolean) => entry("in", at, { type: "ready", cursor, resumed });
const event = (at: number, seq: number, happened: number, first_seq?: number) => entry("in", at, { type: "message.delta", seq, at: happened, first_seq });

test("a connection that was cut, and the one that resumed it", () => {
  const [second, first] = connectionsOf([
    opened(1000, null),
    ready(1010, "e:5", false),
    event(1100, 6, 1099),
    entry("note", 1200, {}, "cut"),
    entry("note", 1210, { code: 1006 }, "close"),
    opened(6000, "e:6"),
    ready(6010, "e:6", true),
    event(6011, 9, 3000, 7),
    event(6100, 10, 6099),
  ]);
  expect(first).toMatchObject({ after: null, ready: { resumed: false }, replayed: 0, events: 1, end: { at: 1200, isCut: true } });
  expect(second).toMatchObject({ after: "e:6", ready: { resumed: true, cursor: "e:6" }, replayed: 3, events: 4, lastSeq: 10, end: null });
});

test("an end without a cut has the code of the server", () => {
  const [only] = connectionsOf([opened(1, null), entry("note", 2, { code: 4001 }, "close")]);
  expect(only).toMatchObject({ ready: null, end: { at: 2, code: 4001, isCut: false } });
});

test("frames whose connection was opened before the record began belong to none", () => {
  expect(connectionsOf([event(1, 2, 0)])).toEqual([]);
});

test("a ready in mid-connection does not replace the first", () => {
  const [only] = connectionsOf([opened(1, "a:1"), ready(2, "a:1", true), ready(3, "b:0", false)]);
  expect(only!.ready).toEqual({ resumed: true, cursor: "a:1" });
});

test("an access token is not recorded, but counts for the size", () => {
  const frame = JSON.stringify({ type: "auth", token: "secret-token" });
  const { text, bytes, type } = entryOf("out", null, frame, 1, "a:1");
  expect(text).toBe('{"type":"auth","token":"…"}');
  expect(bytes).toBe(frame.length);
  expect(type).toBe("auth");
});

test("an event is recorded with its numbers, its time and its size in bytes", () => {
  const frame = JSON.stringify({ type: "message.delta", seq: 9, first_seq: 7, at: "2026-11-29T10:00:00Z", text: "да" });
  expect(entryOf("in", null, frame, 5, "a:2")).toEqual({
    ...{ id: "a:2", at: 5, direction: "in", type: "message.delta", seq: 9, first: 7, happened: Date.parse("2026-11-29T10:00:00Z") },
    ...{ bytes: frame.length + 2, text: frame },
  });
});

test("a tab that joins has the whole record once, though an entry came before it", () => {
  const [open, first, next] = [opened(1, null), ready(2, "e:1", false), event(3, 2, 3)];
  expect(withEarlier([next], [open, first, next])).toEqual([open, first, next]);
  expect(withEarlier([open, first, next], [open, first])).toEqual([open, first, next]);
});
