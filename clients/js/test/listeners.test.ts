import assert from "node:assert/strict";
import { test } from "node:test";
import { Listeners } from "../src/listeners.js";
import type { SessionEvent } from "../src/wire.js";

const event = (type: SessionEvent["type"], seq: number) => ({ type, seq }) as SessionEvent;
const settled = () => new Promise((resolve) => setImmediate(resolve));

test("a listener gets the events of its type, until it is removed", async () => {
  const listeners = new Listeners();
  const seen: unknown[] = [];
  const stop = listeners.on("message.delta", ({ seq }) => seen.push(seq));
  [event("message.delta", 1), event("turn.started", 2), event("message.delta", 3)].forEach((each) => listeners.emit(each));
  await settled();
  stop();
  listeners.emit(event("message.delta", 4));
  await settled();
  assert.deepEqual(seen, [1, 3]);
});

test("an iteration misses nothing while its body waits, and ends with the chat", async () => {
  const listeners = new Listeners();
  const seen: unknown[] = [];
  const reading = (async () => {
    for await (const { seq } of listeners) {
      seen.push(seq);
      await settled();
    }
  })();
  [1, 2, 3].forEach((seq) => listeners.emit(event("message.delta", seq)));
  listeners.emit(null);
  await reading;
  assert.deepEqual(seen, [1, 2, 3]);
});

test("leaving the loop ends the subscription", async () => {
  const listeners = new Listeners();
  const iteration = listeners[Symbol.asyncIterator]();
  listeners.emit(event("message.delta", 1));
  assert.equal((await iteration.next()).value?.seq, 1);
  await iteration.return();
  listeners.emit(event("message.delta", 2));
  assert.deepEqual(await iteration.next(), { done: true, value: undefined });
});
