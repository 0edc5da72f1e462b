import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Connection, type OpenLink } from "../src/connection.js";
import { type Link, type LinkFrame, type LinkHandlers, type LinkRequest, NO_CODE } from "../src/link.js";
import type { ReadyFrame } from "../src/wire.js";

const READY = { type: "ready", cursor: "e:5", resumed: false, user_id: "u", limits: {}, turn: null, queued: [] } as unknown as ReadyFrame;
const event = (seq: number, fields: object = {}) => ({ type: "agent.status", epoch: "e", seq, at: "", status: "active", reason: null, ...fields }) as LinkFrame;

interface Opened extends LinkHandlers {
  transport: string;
  request: LinkRequest;
  sent: string[];
}

/** A connection with fake transports and time. `next` resolves to the next link that it opens. */
function scene(context: TestContext, token: string | null = "token") {
  context.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const frames: LinkFrame[] = [];
  const statuses: string[] = [];
  const opened: Opened[] = [];
  const transport = (name: string) => async (): Promise<OpenLink> => (request, handlers) => {
    const sent: string[] = [];
    opened.push({ ...handlers, transport: name, request, sent });
    const link: Link = { send: () => {}, renew: (fresh) => sent.push(`renew ${fresh}`), probe: () => sent.push("probe") > 0, close: () => sent.push("close") };
    return link;
  };
  const tokens = [token];
  const connection = new Connection({
    api: "http://test/api/v1",
    getToken: () => tokens.at(-1) ?? null,
    transports: [transport("socket"), transport("stream")],
    frame: (frame) => frames.push(frame),
    status: (status) => statuses.push(status),
  });
  context.after(() => connection.stop());
  void connection.run();
  const settle = async () => {
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  };
  const next = async (): Promise<Opened> => {
    const known = opened.length;
    await settle();
    if (opened.length === known) context.mock.timers.tick(60_000);
    await settle();
    return opened.at(-1)!;
  };
  return { connection, frames, statuses, tokens, next, settle, tick: (ms: number) => context.mock.timers.tick(ms) };
}

test("it resumes after the last event that it passed on", async (context) => {
  const { next } = scene(context);
  const first = await next();
  assert.equal(first.request.cursor, null);
  first.frame(READY);
  first.frame(event(6));
  first.ended({ code: NO_CODE, error: null });
  assert.equal((await next()).request.cursor, "e:6");
});

test("repeated events are not passed on, and a gap ends the connection", async (context) => {
  const { next, frames } = scene(context);
  const first = await next();
  [READY, event(6), event(6), event(5)].forEach((frame) => first.frame(frame));
  assert.deepEqual(frames, [READY, event(6)]);
  first.frame(event(8));
  const second = await next();
  assert.notEqual(second, first);
  assert.equal(second.request.cursor, "e:6");
  assert.equal(frames.length, 2);
});

test("the second transport is used where the first never gets through, and left again when it ends", async (context) => {
  const { next } = scene(context);
  const used: string[] = [];
  for (let attempt = 0; attempt < 2; attempt++) {
    const link = await next();
    used.push(link.transport);
    link.ended({ code: NO_CODE, error: null });
  }
  const stream = await next();
  used.push(stream.transport);
  stream.frame(READY);
  stream.ended({ code: 1012, error: null });
  used.push((await next()).transport);
  assert.deepEqual(used, ["socket", "socket", "stream", "socket"]);
});

test("a server that is down does not look like one whose sockets are blocked", async (context) => {
  const { next } = scene(context);
  const used: string[] = [];
  for (let attempt = 0; attempt < 6; attempt++) {
    const link = await next();
    used.push(link.transport);
    link.ended({ code: NO_CODE, error: null });
  }
  assert.deepEqual(used, ["socket", "socket", "stream", "socket", "socket", "stream"]);
});

test("a silent connection is asked for a sign of life, and ended without one", async (context) => {
  const { next, tick, statuses } = scene(context);
  const link = await next();
  link.frame(READY);
  tick(30_000);
  assert.deepEqual(link.sent, ["probe"]);
  link.alive();
  tick(30_000);
  tick(10_000);
  assert.deepEqual(link.sent, ["probe", "probe", "close"]);
  await next();
  assert.deepEqual(statuses, ["connecting", "online", "offline", "connecting"]);
});

test("while no attempt succeeds it stays offline", async (context) => {
  const { next, statuses, settle } = scene(context);
  for (let attempt = 0; attempt < 4; attempt++) (await next()).ended({ code: NO_CODE, error: null });
  (await next()).frame(READY);
  await settle();
  assert.deepEqual(statuses, ["connecting", "offline", "connecting", "offline", "offline", "offline", "online"]);
});

test("when the page is visible again a dead connection is found within seconds", async (context) => {
  const { connection, next, tick } = scene(context);
  const link = await next();
  link.frame(READY);
  connection.wake();
  tick(5000);
  assert.deepEqual(link.sent, ["probe", "close"]);
});

test("when the network is back it does not wait for the end of its pause", async (context) => {
  const { connection, next, settle } = scene(context);
  const first = await next();
  first.ended({ code: 1013, error: null });
  await settle();
  connection.wake();
  await settle();
  const second = await next();
  assert.notEqual(second, first);
});

test("a fresh token is sent a minute before the old one expires", async (context) => {
  const claims = (seconds: number) => `e30.${btoa(JSON.stringify({ sub: "u", exp: seconds }))}.s`;
  const { next, tick, settle, tokens } = scene(context, claims(600));
  const link = await next();
  link.frame(READY);
  tokens.push(claims(4200));
  for (let minute = 0; minute < 9; minute++) {
    assert.deepEqual(link.sent.filter((sent) => sent !== "probe"), []);
    tick(25_000);
    link.alive();
    tick(25_000);
    link.alive();
    tick(10_000);
    link.alive();
  }
  await settle();
  assert.deepEqual(link.sent.filter((sent) => sent !== "probe"), [`renew ${tokens[1]}`]);
});

test("without a token it is closed, and says why", async (context) => {
  const { statuses, settle } = scene(context, null);
  await settle();
  assert.deepEqual(statuses, ["connecting", "closed"]);
});
