// The whole client on a WebSocket and a fetch of the test's own: what its parts must do together.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ChatError } from "../src/errors.js";
import type { WebSocketClass } from "../src/socket.js";
import type { Message } from "../src/wire.js";
import { memory, message, page, ready, scene, started, turnOf } from "./scene.js";

test("what a closed chat could not send is sent by the next chat of the user, and of nobody else", async (context) => {
  const storage = memory();
  const first = scene(context, { storage });
  (await first.socket()).receive(ready());
  const lost = first.chat.send("Hello", { id: "a" });
  first.chat.close();
  await assert.rejects(lost, { code: "closed" });
  await assert.rejects(first.chat.send("Too late"), { code: "closed" });
  const other = scene(context, { storage });
  const socket = await other.socket();
  socket.receive(ready({ user_id: "grace" }));
  await other.until(({ history }) => !history.isLoading);
  assert.deepEqual([other.chat.state.messages, socket.sent], [[], []]);
  const next = scene(context, { storage });
  const again = await next.socket();
  again.receive(ready());
  assert.deepEqual(next.chat.state.messages.map(({ text, status }) => [text, status]), [["Hello", "sending"]]);
  assert.ok(again.sent.every(({ id }) => id === "a") && again.sent.length);
});

test("another user in the same chat sees and sends nothing of the last one", async (context) => {
  const { chat, socket } = scene(context);
  const first = await socket();
  first.receive(ready(), started("t", 1, "secret"));
  void chat.send("mine").catch(() => {});
  first.onclose({ code: 4002 });
  const second = await socket();
  second.receive(ready({ user_id: "grace", cursor: "f:0" }));
  assert.deepEqual(chat.state.messages, []);
  assert.deepEqual(second.sent, []);
});

test("who waits for the end of a turn goes on waiting over a reconnect by hand", async (context) => {
  const { chat, socket, answers } = scene(context);
  const first = await socket();
  first.receive(ready(), started("t", 1));
  const ended = chat.ended("t");
  chat.reconnect();
  const second = await socket();
  answers["t"] = { ...turnOf("t", 1), status: "completed", message: { ...message("t", "assistant", "Hello"), status: "complete" } };
  second.receive(ready({ cursor: "f:0" }));
  assert.equal((await ended).reply?.text, "Hello");
});

test("a retried turn is open from its ack on, before its events arrive", async (context) => {
  const { chat, socket, answers } = scene(context);
  answers["history"] = page([message("t", "assistant", "He"), message("t", "user", "Hi")]);
  const connection = await socket();
  connection.receive(ready());
  await chat.ended("t").catch(() => {});
  while (!chat.state.messages.length) await new Promise((resolve) => setImmediate(resolve));
  const retried = chat.retry(chat.state.messages[1]!);
  connection.receive({ type: "ack", id: "retry:t", turn_id: "t", message_id: "t-user", queue_position: null, duplicate: false });
  let isOver = false;
  const ended = chat.ended(await retried).then((turn) => ((isOver = true), turn));
  assert.equal(chat.state.reply?.turnId, "t");
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isOver, false);
  connection.receive(
    started("t", 2),
    { type: "turn.completed", epoch: "e", seq: 2, at: "", turn_id: "t", attempt: 2, turn: { ...turnOf("t", 2), status: "completed", message: message("t", "assistant", "Hello") } },
  );
  assert.equal((await ended).reply?.text, "Hello");
});

test("a page of older messages that is late does not bring a deleted history back", async (context) => {
  const { chat, socket, answers, until } = scene(context);
  answers["history"] = page([message("b", "user", "new")], "older");
  const connection = await socket();
  connection.receive(ready());
  await until(({ history }) => history.hasMore);
  let answer = (_: object) => {};
  answers["history"] = () => new Promise((resolve) => (answer = resolve));
  const older = chat.loadOlder();
  await new Promise((resolve) => setImmediate(resolve));
  connection.receive({ type: "history.deleted", epoch: "e", seq: 1, at: "", deleted_at: "" });
  answer(page([message("a", "user", "old")]));
  assert.equal(await older, false);
  assert.deepEqual(chat.state.messages, []);
});

test("a history that the last connection's network swallowed is asked for again on the next connection", async (context) => {
  const { chat, socket, answers, until } = scene(context);
  answers["history"] = () => new Promise(() => {});
  const first = await socket();
  first.receive(ready());
  first.onclose({ code: 1006 });
  const second = await socket();
  answers["history"] = page([message("t", "user", "Hi")]);
  second.receive(ready({ resumed: true }));
  await until(({ history }) => !history.isLoading);
  assert.deepEqual(chat.state.messages.map(({ text }) => text), ["Hi"]);
});

test("a history that breaks off is asked for again", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { chat, socket, answers } = scene(context);
  answers["history"] = () => new Response('{"da');
  (await socket()).receive(ready());
  await new Promise((resolve) => setImmediate(resolve));
  answers["history"] = page([message("t", "user", "Hi")]);
  while (chat.state.history.isLoading) {
    context.mock.timers.tick(1000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual(chat.state.messages.map(({ text }) => text), ["Hi"]);
});

test("a connection that is closed for good loads nothing any more", async (context) => {
  const { chat, socket, answers, until } = scene(context);
  answers["history"] = () => new Promise(() => {});
  const connection = await socket();
  connection.receive(ready());
  connection.onclose({ code: 4502 });
  await until(({ connection }) => connection === "closed");
  assert.equal(chat.state.history.isLoading, false);
});

test("an answer that is older than an event does not undo it", async (context) => {
  const { chat, socket, answers, until } = scene(context);
  let answer = (_: object) => {};
  answers["status"] = () => new Promise((resolve) => (answer = resolve));
  const connection = await socket();
  connection.receive(ready());
  await new Promise((resolve) => setImmediate(resolve));
  connection.receive({ type: "agent.status", epoch: "e", seq: 1, at: "", status: "provisioning", reason: null });
  answer({ status: "active", reason: null });
  await until(({ history }) => !history.isLoading);
  assert.equal(chat.state.agent.status, "provisioning");
});

test("an address that no WebSocket takes is an error in the state, and is tried again", async (context) => {
  const Broken = class {
    constructor() {
      throw new SyntaxError("no such scheme");
    }
  } as unknown as WebSocketClass;
  const { chat, until } = scene(context, { WebSocket: Broken });
  await until(({ connection }) => connection === "offline");
  assert.equal(chat.state.error?.code, "network");
  assert.equal((chat.state.error as ChatError).cause instanceof SyntaxError, true);
  await until(({ connection }) => connection === "connecting");
});

test("a getToken that throws is asked again, and the history is loaded then", async (context) => {
  let tries = 0;
  const getToken = () => {
    if (++tries === 1 || tries === 3) throw new Error("not now");
    return "token";
  };
  const { chat, socket, answers, until } = scene(context, { getToken });
  answers["history"] = page([message("a", "user", "old")]);
  await until(({ connection }) => connection === "offline");
  assert.equal((chat.state.error as ChatError).cause instanceof Error, true);
  (await socket()).receive(ready());
  await until(({ messages }) => messages.length === 1);
});

test("a connection that the server closed because the user signed out elsewhere says so", async (context) => {
  const { chat, socket, until } = scene(context);
  const connection = await socket();
  connection.receive(ready());
  connection.onclose({ code: 4502 });
  await until(({ connection }) => connection === "closed");
  assert.deepEqual([chat.state.error?.code, chat.state.error?.retryable], ["unauthorized", false]);
});

test("with two thousand messages each delta changes one of them alone", async (context) => {
  const { chat, socket, answers, until } = scene(context);
  const connection = await socket();
  const pages = Array.from({ length: 20 }, (_, index) => {
    const turns = Array.from({ length: 50 }, (_, turn) => `t${index * 50 + turn}`).reverse();
    return page(turns.flatMap((id) => [{ ...message(id, "assistant", `re ${id}`), status: "complete" } as Message, message(id, "user", id)]), index ? `${index}` : null);
  });
  answers["history"] = () => pages.pop()!;
  connection.receive(ready());
  await until(({ history }) => history.hasMore);
  while (await chat.loadOlder());
  assert.equal(chat.state.messages.length, 2000);
  assert.deepEqual(chat.state.messages.map(({ text }) => text), Array.from({ length: 1000 }, (_, turn) => [`t${turn}`, `re t${turn}`]).flat());
  connection.receive(started("new", 1));
  const before = chat.state.messages;
  const words = Array.from({ length: 500 }, (_, index) => `${index}é😀 `);
  const began = performance.now();
  words.forEach((text, index) => connection.receive({ type: "message.delta", epoch: "e", seq: index + 2, at: "", turn_id: "new", attempt: 1, text }));
  context.diagnostic(`${((performance.now() - began) / words.length).toFixed(3)} ms a delta`);
  const after = chat.state.messages;
  assert.equal(after.at(-1)?.text, words.join(""));
  assert.deepEqual(after.map((each, index) => each === before[index]).lastIndexOf(true), 2000, "all but the reply are the same objects");
});
