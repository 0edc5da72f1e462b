import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answered, Outbox } from "../src/outbox.js";
import type { ErrorFrame } from "../src/wire.js";

const message = (id: string): Answered => ({ type: "message", id, client_message_id: id, content: id });
const refusal = (id: string, code: ErrorFrame["code"], retryable: boolean): ErrorFrame => ({ type: "error", id, code, message: code, retryable });
const ack = (id: string) => ({ type: "ack", id, turn_id: "t", message_id: "m", queue_position: null, duplicate: false }) as const;

function outbox(storage: Map<string, string> | null = null) {
  const sent: string[] = [];
  const box = new Outbox(
    ({ id }) => sent.push(id),
    () => {},
    storage && {
      getItem: (key) => storage.get(key) ?? null,
      setItem: (key, value) => void storage.set(key, value),
      removeItem: (key) => void storage.delete(key),
    },
  );
  return { box, sent };
}

test("messages are sent again in their order, until each is acknowledged", async () => {
  const { box, sent } = outbox();
  const first = box.add(message("a"));
  void box.add(message("b"));
  box.receive(ack("a"));
  assert.equal(await first, "t");
  box.flush();
  assert.deepEqual(sent, ["a", "b", "b"]);
});

test("a second send of the same id is the same message", () => {
  const { box, sent } = outbox();
  assert.equal(box.add(message("a")), box.add(message("a")));
  assert.deepEqual(sent, ["a"]);
});

test("a temporary refusal is repeated after retry_after, a final one rejects", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { box, sent } = outbox();
  const answer = box.add(message("a"));
  box.receive({ ...refusal("a", "overloaded", true), retry_after: 10 });
  box.flush();
  assert.deepEqual(sent, ["a"], "it waits, also over a reconnect");
  context.mock.timers.tick(12_500);
  assert.deepEqual(sent, ["a", "a"]);
  box.receive(refusal("a", "busy", true));
  await assert.rejects(answer, { code: "busy", retryable: true });
});

test("a retry whose ack was lost is not an error when it is sent again", async () => {
  const { box } = outbox();
  const answer = box.add({ type: "retry", id: "retry:t", turn_id: "t" });
  box.flush();
  box.receive(refusal("retry:t", "not_retryable", false));
  assert.equal(await answer, "t");
});

test("messages survive a reload, for the same user alone", async () => {
  const storage = new Map<string, string>();
  const before = outbox(storage);
  before.box.restore("ada");
  void before.box.add(message("a"));
  const other = outbox(storage);
  assert.deepEqual(other.box.restore("grace"), []);
  const after = outbox(storage);
  assert.deepEqual(after.box.restore("ada").map(({ content }) => content), ["a"]);
});

test("what the storage holds may be anything", () => {
  const { box } = outbox(new Map([["chat.outbox.ada", "{broken"]]));
  assert.deepEqual(box.restore("ada"), []);
});
