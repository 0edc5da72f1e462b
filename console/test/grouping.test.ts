// Turns in groups that stay what they are.
import { newMessage } from "@ai-chat-platform/client/state";
import type { ChatTurn } from "@ai-chat-platform/client";
import { expect, test } from "vitest";
import { Grouping } from "../src/talk/grouping";

const turn = (id: number, text = ""): ChatTurn => ({
  id: String(id),
  attempt: 1,
  user: newMessage({ id: `${id}:user`, turnId: String(id), role: "user", text, status: "sent", createdAt: "" }),
  reply: null,
});
const turns = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => turn(from + i));

test("a word changes only the last group", () => {
  const grouping = new Grouping();
  const shown = turns(0, 70);
  const before = grouping.of(shown);
  const after = grouping.of([...shown.slice(0, -1), turn(69, "word")]);
  expect(after.map((group, i) => group === before[i])).toEqual([true, true, true, false]);
});

test("older turns come into groups of their own", () => {
  const grouping = new Grouping();
  const newest = turns(100, 130);
  const before = grouping.of(newest);
  const all = [...turns(50, 100), ...newest];
  const after = grouping.of(all);
  expect(after.slice(-2)).toEqual(before);
  expect(after.at(-1)).toBe(before.at(-1));
  expect(after.flatMap(({ members }) => members)).toEqual(all);
  expect(new Set(after.map(({ key }) => key)).size).toBe(after.length);
});

test("new turns fill the last group, then begin another", () => {
  const grouping = new Grouping();
  grouping.of(turns(0, 15));
  expect(grouping.of(turns(0, 41)).map(({ members }) => members.length)).toEqual([20, 20, 1]);
});

test("older and newer turns at once, and turns that went away, are in order", () => {
  const grouping = new Grouping();
  grouping.of(turns(20, 30));
  const all = [...turns(0, 25), ...turns(27, 90)];
  expect(grouping.of(all).flatMap(({ members }) => members)).toEqual(all);
});

test("another conversation is grouped anew", () => {
  const grouping = new Grouping();
  grouping.of(turns(0, 30));
  expect(grouping.of([])).toEqual([]);
  expect(grouping.of(turns(50, 60)).map(({ members }) => members.length)).toEqual([10]);
});

test("a message that is sent again moves down, and each group has a key of its own", () => {
  const grouping = new Grouping();
  const shown = turns(0, 25);
  grouping.of(shown);
  const moved = [...shown.slice(0, 5), ...shown.slice(6), shown[5]!];
  const groups = grouping.of(moved);
  expect(groups.flatMap(({ members }) => members)).toEqual(moved);
  expect(new Set(groups.map(({ key }) => key)).size).toBe(groups.length);
});
