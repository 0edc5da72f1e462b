// A chat on a WebSocket and a fetch of the test's own.
import type { TestContext } from "node:test";
import { type Chat, type ChatOptions, createChat } from "../src/chat.js";
import type { WebSocketClass } from "../src/socket.js";
import type { Message, Turn } from "../src/wire.js";

const LIMITS = { frame_bytes: 65_536 };
export const ready = (fields: object = {}) => ({ type: "ready", cursor: "e:0", resumed: false, user_id: "ada", limits: LIMITS, turn: null, queued: [], ...fields });
export const message = (turn_id: string, role: "user" | "assistant", content: string): Message => ({
  ...{ id: `${turn_id}-${role}`, turn_id, role, content, status: role === "user" ? "complete" : "partial" },
  ...{ tokens_used: null, cost: null, created_at: "2026-01-01T00:00:00Z" },
});
export const page = (data: Message[] = [], next: string | null = null) => ({ data, has_more: next !== null, next_cursor: next });

export class FakeSocket {
  readyState = 1;
  onopen = () => {};
  onmessage = (_: { data: string }) => {};
  onclose = (_: { code: number }) => {};
  sent: { type: string; id?: string }[] = [];

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }
  close(): void {
    this.readyState = 3;
  }
  receive(...frames: object[]): void {
    for (const frame of frames) this.onmessage({ data: JSON.stringify(frame) });
  }
}

export interface Scene {
  chat: Chat;
  /** The next socket that the chat opens. */
  socket(): Promise<FakeSocket>;
  /** Answers of the REST API, by the end of the path; a function may delay its own, or give a Response. */
  answers: Record<string, unknown>;
  until(condition: (state: Chat["state"]) => boolean): Promise<void>;
}

export function scene(context: TestContext, options: Partial<ChatOptions> = {}): Scene {
  const opened: FakeSocket[] = [];
  let wake = () => {};
  class Socket extends FakeSocket {
    constructor() {
      super();
      opened.push(this);
      wake();
    }
  }
  const answers: Scene["answers"] = { history: page(), status: { status: "active", reason: null } };
  context.mock.method(globalThis, "fetch", async (url: string, { signal }: RequestInit) => {
    const answer = answers[new URL(url).pathname.split("/").at(-1)!];
    const aborted = new Promise<never>((_, reject) => signal?.addEventListener("abort", reject));
    aborted.catch(() => {});
    const given = typeof answer === "function" ? await Promise.race([answer(), aborted]) : answer;
    return given instanceof Response ? given : Response.json(given);
  });
  const WebSocket = Socket as unknown as WebSocketClass;
  const chat = createChat({ url: "https://test/base/", getToken: () => "token", storage: null, transport: "websocket", WebSocket, ...options });
  context.after(() => chat.close());
  return {
    chat,
    answers,
    async socket() {
      while (!opened.length) await new Promise<void>((resolve) => (wake = resolve));
      return opened.shift()!;
    },
    until: (condition) =>
      new Promise((resolve) => {
        const check = () => condition(chat.state) && (stop(), resolve());
        const stop = chat.subscribe(check);
        check();
      }),
  };
}

export function memory() {
  const items = new Map<string, string>();
  return { items, getItem: (key: string) => items.get(key) ?? null, setItem: (key: string, value: string) => void items.set(key, value), removeItem: (key: string) => void items.delete(key) };
}

export const turnOf = (id: string, attempt: number): Turn => ({
  ...{ id, attempt, status: "cancelled", client_message_id: "x", user_message: message(id, "user", "Hi"), message: message(id, "assistant", "He") },
  ...{ usage: null, cost: null, cost_status: null, error: null, reason: null, queue_position: null },
  ...{ created_at: "", started_at: "", finished_at: "" },
});

export const started = (turn_id: string, attempt: number, text = "Hi") => ({
  ...{ type: "turn.started", epoch: "e", seq: 1, at: "", turn_id, attempt, user_message: message(turn_id, "user", text) },
  ...{ client_message_id: "x", queue_position: null },
});
