// Two tabs of one user in one page's globals: a lock that the first one holds, and a real BroadcastChannel.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { message, page, ready, scene } from "./scene.js";

const TOKEN = `e30.${btoa(JSON.stringify({ sub: "ada" }))}.s`;

function inBrowser(context: TestContext): void {
  let last = Promise.resolve();
  const request = (_: string, __: object, hold: () => Promise<void>) => (last = last.then(hold));
  const fields = { document: new EventTarget(), navigator: { locks: { request } } };
  const before = Object.keys(fields).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const);
  for (const [name, value] of Object.entries(fields)) Object.defineProperty(globalThis, name, { value, configurable: true });
  context.after(() => {
    for (const [name, old] of before) old ? Object.defineProperty(globalThis, name, old) : delete (globalThis as Record<string, unknown>)[name];
  });
}

test("a tab that joins while the first one still loads has the history, too", async (context) => {
  inBrowser(context);
  const first = scene(context, { getToken: () => TOKEN });
  let answer = (_: object) => {};
  first.answers["history"] = () => new Promise((resolve) => (answer = resolve));
  const socket = await first.socket();
  socket.receive(ready());
  await first.until(({ connection }) => connection === "online");
  context.mock.restoreAll(); // each scene has a fetch of its own
  const second = scene(context, { getToken: () => TOKEN });
  second.answers["history"] = page([message("a", "user", "old")]);
  await second.until(({ history }) => !history.isLoading);
  assert.deepEqual(second.chat.state.messages.map(({ text }) => text), ["old"]);
  answer(page([message("a", "user", "old")]));
  await first.until(({ history }) => !history.isLoading);
});
