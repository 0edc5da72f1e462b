import assert from "node:assert/strict";
import { test } from "node:test";
import type { UIMessageChunk } from "ai";
import { type AgentMessage, AgentTransport, uiMessages } from "../src/ai.js";
import { message, page, ready, scene, started, turnOf } from "./scene.js";

const CHAT = { chatId: "c", trigger: "submit-message" as const, messageId: undefined };
const user = (text: string): AgentMessage => ({ id: "own", role: "user", parts: [{ type: "text", text }] });
const settled = () => new Promise((resolve) => setImmediate(resolve));
const completed = (turn_id: string, seq: number, text: string) => ({
  ...{ type: "turn.completed", epoch: "e", seq, at: "", turn_id, attempt: 1 },
  turn: { ...turnOf(turn_id, 1), status: "completed", message: { ...message(turn_id, "assistant", text), status: "complete" } },
});
const delta = (turn_id: string, seq: number, text: string) => ({ type: "message.delta", epoch: "e", seq, at: "", turn_id, attempt: 1, text });
const ack = (id: string, turn_id: string) => ({ type: "ack", id, turn_id, message_id: "m", queue_position: null, duplicate: false });

async function read(stream: ReadableStream<UIMessageChunk>): Promise<string[]> {
  const types: string[] = [];
  for await (const chunk of stream) types.push(chunk.type === "error" ? `error: ${chunk.errorText}` : chunk.type);
  return types;
}

test("a stop that comes before the server has the message stops its turn", async (context) => {
  const { chat, socket } = scene(context);
  const connection = await socket();
  connection.receive(ready());
  const stopping = new AbortController();
  const sending = new AgentTransport(chat).sendMessages({ ...CHAT, messages: [user("Hi")], abortSignal: stopping.signal });
  stopping.abort();
  connection.receive(ack("own", "t"));
  await sending;
  assert.deepEqual(connection.sent.map(({ type, id }) => [type, id]), [["message", "own"], ["cancel", "cancel:t"]]);
});

test("a stream that is resumed a second time stops nothing, and a stop does", async (context) => {
  const { chat, socket } = scene(context);
  const connection = await socket();
  connection.receive(ready(), started("t", 1));
  await settled();
  const transport = new AgentTransport(chat);
  const [first, second] = [new AbortController(), new AbortController()];
  await transport.reconnectToStream({ chatId: "c", abortSignal: first.signal });
  first.abort(); // what the SDK does when it is asked to resume once more
  await transport.reconnectToStream({ chatId: "c", abortSignal: second.signal });
  await settled();
  assert.deepEqual(connection.sent, []);
  second.abort();
  await settled();
  assert.deepEqual(connection.sent.map(({ type }) => type), ["cancel"]);
});

test("a chat that is closed in the middle of a reply ends its stream with an error", async (context) => {
  const { chat, socket } = scene(context);
  const connection = await socket();
  connection.receive(ready(), started("t", 1), delta("t", 2, "He"));
  await settled();
  const stream = await new AgentTransport(chat).reconnectToStream({ chatId: "c" });
  connection.onclose({ code: 4502 });
  assert.deepEqual(await read(stream!), ["start", "text-start", "text-delta", "error: Sign in again."]);
});

test("the hook follows other devices, final costs, older messages and a deleted history, and keeps the reply that it streams", async (context) => {
  const { chat, socket, answers, until } = scene(context);
  answers["history"] = page([message("a", "user", "A")], "older");
  const connection = await socket();
  connection.receive(ready());
  const transport = new AgentTransport(chat);
  let shown = await transport.firstMessages();
  const stop = transport.follow((change) => (shown = change(shown)));
  const texts = () => shown.flatMap(({ parts }) => parts.map((part) => (part.type === "text" ? part.text : part.type)));
  assert.deepEqual(texts(), ["A"]);

  connection.receive(started("b", 1), completed("b", 2, "B"));
  await settled();
  assert.deepEqual(texts(), ["A", "Hi", "B"]);
  connection.receive({ type: "usage.settled", epoch: "e", seq: 3, at: "", turn_id: "b", attempt: 1, cost: "0.5", cost_status: "settled", usage: null });
  await settled();
  assert.equal(shown.at(-1)?.metadata?.cost, "0.5");

  const sending = transport.sendMessages({ ...CHAT, messages: [user("Mine")], abortSignal: undefined });
  connection.receive(ack("own", "c"), { ...started("c", 1, "Mine"), seq: 4, client_message_id: "own" }, delta("c", 5, "half"));
  await sending;
  shown.push(user("Mine"), { id: chat.state.reply!.id, role: "assistant", parts: [{ type: "text", text: "half" }] });
  answers["history"] = page([message("z", "user", "Older")]);
  await chat.loadOlder();
  await settled();
  assert.deepEqual(texts(), ["Older", "A", "Hi", "B", "Mine", "half"]);

  connection.receive(completed("c", 6, "whole"), { type: "history.deleted", epoch: "e", seq: 7, at: "", deleted_at: "" });
  await until(({ messages }) => !messages.length);
  await settled();
  assert.deepEqual(texts(), []);
  stop();
});

test("tools, reasoning and what a reply costs are parts and metadata of a message of the SDK", async (context) => {
  const { chat, socket } = scene(context);
  const connection = await socket();
  const frame = (type: string, seq: number, fields: object) => ({ type, epoch: "e", seq, at: "", turn_id: "t", attempt: 1, ...fields });
  connection.receive(
    ...[ready(), started("t", 1), frame("reasoning.delta", 2, { text: "Hm" })],
    frame("tool.called", 3, { call_id: "1", name: "search", arguments: '{"q": 1}', truncated: false }),
    frame("tool.called", 4, { call_id: "2", name: "note", arguments: "{cut", truncated: true }),
    ...[frame("tool.returned", 5, { call_id: "1", name: "search", status: "success" }), frame("tool.returned", 6, { call_id: "2", name: "note", status: "error" })],
    completed("t", 7, "Done"),
  );
  const parts = uiMessages(chat.state.turns).at(-1)!.parts.map((part) => ("input" in part ? [part.type, part.state, part.input] : [part.type]));
  assert.deepEqual(parts, [["reasoning"], ["dynamic-tool", "output-available", { q: 1 }], ["dynamic-tool", "output-error", "{cut"], ["text"]]);
});
