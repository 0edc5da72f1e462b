import assert from "node:assert/strict";
import { test } from "node:test";
import { withPage } from "../src/history.js";
import type { LinkFrame } from "../src/link.js";
import { acknowledged, reduce } from "../src/reduce.js";
import { type ChatState, INITIAL, newMessage, withTurns } from "../src/state.js";
import type { History, Message, ReadyFrame } from "../src/wire.js";

const AT = "2026-11-01T00:00:00Z";
const message = (turn_id: string, role: "user" | "assistant", content: string, status: Message["status"] = "complete"): Message => ({
  ...{ id: `${turn_id}${role}`, turn_id, role, content, status, tokens_used: null, cost: null, created_at: AT },
});
let seq = 0;
const event = (type: string, turn_id: string, fields: object = {}) =>
  ({ type, epoch: "e", seq: ++seq, at: AT, turn_id, attempt: 1, ...fields }) as LinkFrame;
const started = (id: string, fields: object = {}) =>
  event("turn.started", id, { user_message: message(id, "user", id), client_message_id: `client-${id}`, ...fields });
const delta = (id: string, text: string, fields: object = {}) => event("message.delta", id, { text, ...fields });
const completed = (id: string, text: string, attempt = 1) =>
  event("turn.completed", id, {
    attempt,
    turn: {
      ...{ id, status: "completed", attempt, client_message_id: `client-${id}`, user_message: message(id, "user", id) },
      ...{ message: message(id, "assistant", text), usage: null, cost: null, cost_status: null, error: null, reason: null },
      ...{ queue_position: null, created_at: AT, started_at: AT, finished_at: AT },
    },
  });
const ready = (fields: Partial<ReadyFrame> = {}) =>
  ({ type: "ready", cursor: "e:0", resumed: false, user_id: "u", limits: {}, turn: null, queued: [], ...fields }) as ReadyFrame;
const after = (state: ChatState, ...frames: LinkFrame[]) => frames.reduce(reduce, state);
const page = (has_more: boolean, ...oldestFirst: Message[]): History => ({ data: oldestFirst.toReversed(), has_more, next_cursor: has_more ? "next" : null });
const newest = (state: ChatState, from: History) => withPage(state, from, shown(state));
const shown = (state: ChatState) => new Map(state.turns.filter(({ id }) => id !== state.reply?.turnId && id).map((turn) => [turn.id, turn]));
const texts = (state: ChatState) => state.messages.map(({ text }) => text);

function sending(state: ChatState, id: string): ChatState {
  const user = newMessage({ id, turnId: null, role: "user", text: id, status: "sending", createdAt: AT });
  return withTurns(state, [...state.turns, { id: null, attempt: 0, user, reply: null }]);
}

test("a message keeps its id from sending to reply, so that a list does not move", () => {
  let state = sending(INITIAL, "client-a");
  const { id } = state.messages[0]!;
  state = after(acknowledged(state, "client-a", "a"), started("a"), delta("a", "hi"));
  assert.equal(state.messages[0]!.id, id);
  assert.equal(state.messages[0]!.turnId, "a");
  assert.equal(state.reply?.text, "hi");
});

test("an accepted message goes before those that are not accepted yet", () => {
  const state = after(sending(sending(INITIAL, "client-a"), "client-b"), started("other"), started("b"));
  assert.deepEqual(texts(state), ["other", "", "b", "", "client-a"]);
});

test("objects that did not change stay the same, so that only the reply is rendered again", () => {
  const before = after(INITIAL, started("a"), completed("a", "hi"), started("b"), delta("b", "x"));
  const state = after(before, delta("b", "y"));
  assert.equal(state.messages[0], before.messages[0]);
  assert.equal(state.messages[1], before.messages[1]);
  assert.notEqual(state.messages[3], before.messages[3]);
});

test("text of an earlier attempt does not get into the next one, nor behind an end", () => {
  const state = after(INITIAL, started("a"), delta("a", "old"), started("a", { attempt: 2 }), delta("a", "late"), delta("a", "new", { attempt: 2 }));
  assert.equal(state.reply?.text, "new");
  const end = after(state, completed("a", "ignored"));
  assert.equal(end.reply?.text, "new", "the end of the first attempt comes from a message that was sent again");
});

test("a history that is older than the events does not undo them", () => {
  const running = after(INITIAL, ready(), started("b"), delta("b", "hi"));
  const state = newest(running, page(false, message("a", "user", "a"), message("a", "assistant", "A"), message("b", "user", "b")));
  assert.deepEqual(texts(state), ["a", "A", "b", "hi"]);
  assert.equal(state.reply?.status, "streaming");
});

test("a message that the history has already is not shown twice when its ack arrives", () => {
  const state = newest(sending(INITIAL, "client-a"), page(false, message("a", "user", "client-a"), message("a", "assistant", "A")));
  assert.deepEqual(texts(acknowledged(state, "client-a", "a")), ["client-a", "A"]);
});

test("a turn that ended while the history was on its way stays", () => {
  const state = withPage(after(INITIAL, started("a"), completed("a", "A")), page(false));
  assert.deepEqual(texts(state), ["a", "A"]);
});

test("a history that was read before a retry does not bring the old reply back", () => {
  const stale = page(false, message("a", "user", "a"), { ...message("a", "assistant", "Hm"), status: "partial" });
  const asked = after(INITIAL, started("a"), completed("a", "Hm"));
  for (const before of [INITIAL, asked]) {
    const state = after(asked, started("a", { attempt: 2 }), completed("a", "Hi!", 2));
    assert.deepEqual(texts(withPage(state, stale, shown(before))), ["a", "Hi!"]);
  }
});

test("after a long absence only the newest page is shown, and older ones can be loaded again", () => {
  const before = newest(INITIAL, page(false, message("a", "user", "a"), message("a", "assistant", "A")));
  const state = newest(before, page(true, message("z", "user", "z"), message("z", "assistant", "Z")));
  assert.deepEqual(texts(state), ["z", "Z"]);
  assert.deepEqual(state.history, { isLoading: false, hasMore: true, before: "next" });
});

test("turns that adjoin the newest page stay, with their place in the history", () => {
  const first = newest(INITIAL, page(true, message("b", "user", "b"), message("b", "assistant", "B")));
  const older = withPage(first, page(false, message("a", "user", "a"), message("a", "assistant", "A")));
  const state = newest(older, page(true, message("b", "assistant", "B"), message("c", "user", "c"), message("c", "assistant", "C")));
  assert.deepEqual(texts(state), ["a", "A", "b", "B", "c", "C"]);
  assert.equal(state.history.hasMore, false);
});

test("a page that ends within a turn is completed by the next one", () => {
  const first = newest(INITIAL, page(true, message("a", "assistant", "A")));
  assert.deepEqual(texts(withPage(first, page(false, message("a", "user", "a")))), ["a", "A"]);
});

test("a deleted history takes everything away but what the server does not have yet", () => {
  const before = sending(newest(INITIAL, page(true, message("a", "user", "a"), message("a", "assistant", "A"))), "client-b");
  const state = after(before, event("history.deleted", "", { deleted_at: AT }));
  assert.deepEqual(texts(state), ["client-b"]);
  assert.equal(state.history.hasMore, false);
});

const STEPS = [
  { type: "reasoning.delta", text: "Hm." },
  { type: "tool.called", call_id: "1", name: "search", arguments: "{}", truncated: false },
  { type: "tool.returned", call_id: "1", name: "search", status: "success" },
] satisfies Message["steps"];
const reasonings = (state: ChatState) => state.messages.map(({ reasoning, tools }) => [reasoning, ...tools.map(({ status }) => status)].join(" "));
const answer = (text: string): Message => ({ ...message("a", "assistant", text), steps: STEPS });

test("ready replaces what was seen of the running reply, its reasoning and tools too", () => {
  const before = after(INITIAL, started("a"), event("reasoning.delta", "a", { text: "lost" }), delta("a", "lost"));
  const turn = { turn_id: "a", attempt: 1, text: "so far", user_message: message("a", "user", "a"), steps: STEPS };
  const state = after(before, ready({ turn }), event("reasoning.delta", "a", { text: " Well." }));
  assert.deepEqual([texts(state), reasonings(state)], [["a", "so far"], ["", "Hm. Well. success"]]);
});

test("replies of the history have their reasoning and tools", () => {
  const state = newest(INITIAL, page(false, message("a", "user", "a"), answer("A")));
  assert.deepEqual(reasonings(state), ["", "Hm. success"]);
});

test("the end of a turn brings its steps if it was read, and otherwise leaves those that were seen", () => {
  const seen = after(INITIAL, started("a"), event("reasoning.delta", "a", { text: "seen" }));
  const end = completed("a", "A") as Extract<LinkFrame, { type: "turn.completed" }>;
  assert.deepEqual(reasonings(after(seen, end)), ["", "seen"]);
  assert.deepEqual(reasonings(after(seen, { ...end, turn: { ...end.turn, message: answer("A") } })), ["", "Hm. success"]);
});

test("a turn of the history without a reply can be retried", () => {
  const state = newest(INITIAL, page(false, message("a", "user", "a", "unsent")));
  assert.equal(state.messages[0]!.status, "unsent");
  assert.equal(state.messages[0]!.canRetry, true);
});
