// The AI SDK entry: a transport for `useChat`, and the messages of a chat as the SDK has them. It imports types alone.
import type { ChatTransport, UIMessage, UIMessageChunk } from "ai";
import type { Chat } from "./chat.js";
import { ChatError } from "./errors.js";
import { type ChatMessage, type ChatTurn, isOpen, type ToolCall } from "./state.js";
import type { Usage } from "./wire.js";

/** What a reply costs, and what the parts cannot say. */
export interface ReplyMetadata {
  turnId: string;
  cost: string | null;
  costStatus: ChatMessage["costStatus"];
  usage: Usage | null;
  /** Why a complete reply has no text. */
  note: string | null;
  /** Only if the reply's final text is not what was streamed: show it instead of the text parts. */
  text?: string;
}

export type AgentMessage = UIMessage<ReplyMetadata>;
type Chunk = UIMessageChunk<ReplyMetadata>;
type Setter = (change: (shown: AgentMessage[]) => AgentMessage[]) => void;

export class AgentTransport implements ChatTransport<AgentMessage> {
  /** A resumed stream begins with the whole reply so far. */
  readonly resumeStreamIsReplay = true;
  /** A turn for each stream. */
  readonly #streams = new Set<{ turnId: string }>();
  #resumed = 0;
  /** The ended turns that the hook has. */
  #shown: readonly ChatTurn[] = [];

  constructor(private readonly chat: Chat) {}

  /** The messages for `useChat({messages})`: the newest page of the history, without a reply that still runs, since
   * `resume: true` brings that. Call `chat.loadOlder()` first for more. */
  async firstMessages(): Promise<AgentMessage[]> {
    await this.#until(() => !this.chat.state.history.isLoading);
    this.#shown = this.#ended();
    return uiMessages(this.chat.state.turns);
  }

  /** Call `setMessages` of `useChat` whenever ended turns are not as it knows them: one of another device has ended, one
   * has got its final cost, older ones were loaded, or the history was deleted. Returns a function that ends it. */
  follow(setMessages: Setter): () => void {
    const update = () => {
      const ended = this.#ended();
      if (ended.length === this.#shown.length && ended.every((turn, index) => turn === this.#shown[index])) return;
      this.#shown = ended;
      const { turns } = this.chat.state;
      setMessages((shown) => uiMessages(turns, shown));
    };
    update();
    return this.chat.subscribe(update);
  }

  /** Sends the last message alone: the agent remembers the others. */
  async sendMessages({ trigger, messages, abortSignal }: Parameters<ChatTransport<AgentMessage>["sendMessages"]>[0]) {
    const last = messages.at(-1);
    if (!last) throw new ChatError("invalid_request", "There is no message.");
    if (trigger === "regenerate-message") {
      const turn = this.chat.state.turns.find(({ user }) => user?.id === last.id);
      const failed = [turn?.reply, turn?.user].find((message) => message?.canRetry);
      if (!failed) throw new ChatError("not_retryable", "Only a failed or stopped reply can be repeated.");
      return this.#sent(this.chat.retry(failed), abortSignal);
    }
    const text = last.parts.map((part) => (part.type === "text" ? part.text : "")).join("");
    return this.#sent(this.chat.send(text, { id: last.id }), abortSignal);
  }

  /** The reply, and its stop: also one that comes before the server has the message. */
  async #sent(answer: Promise<string>, abortSignal: AbortSignal | undefined): Promise<ReadableStream<Chunk>> {
    const turnId = await answer;
    const stop = () => void this.chat.cancel(turnId);
    if (abortSignal?.aborted) stop();
    abortSignal?.addEventListener("abort", stop);
    return this.#stream(turnId);
  }

  /** The reply that runs or waits, from its beginning; null if there is none. */
  async reconnectToStream({ abortSignal }: Parameters<ChatTransport<AgentMessage>["reconnectToStream"]>[0]) {
    const number = ++this.#resumed;
    await this.#until(() => !this.chat.state.history.isLoading);
    const turnId = this.chat.state.reply?.turnId ?? this.chat.state.queue[0];
    if (!turnId) return null;
    // The SDK aborts a resumed stream when it is stopped, and also when it resumes once more, as React's StrictMode has
    // it do. It does the latter at once, so that the number has changed by the next microtask.
    const stop = () => queueMicrotask(() => this.#resumed === number && void this.chat.cancel(turnId));
    abortSignal?.addEventListener("abort", stop);
    return this.#stream(turnId);
  }

  #ended(): ChatTurn[] {
    const streaming = new Set<string | null>([...this.#streams].map(({ turnId }) => turnId));
    return this.chat.state.turns.filter((turn) => turn.id !== null && !isOpen(turn) && !streaming.has(turn.id));
  }

  #stream(turnId: string): ReadableStream<Chunk> {
    const { chat } = this;
    const own = { turnId };
    this.#streams.add(own);
    let unsubscribe = () => {};
    const stop = () => {
      unsubscribe();
      this.#streams.delete(own);
    };
    return new ReadableStream<Chunk>({
      start: (controller) => {
        const writer = new ReplyWriter((chunk) => controller.enqueue(chunk));
        const update = () => {
          const turn = chat.state.turns.find(({ id }) => id === turnId);
          if (turn) writer.write(turn);
          if (turn && isOpen(turn)) {
            if (chat.state.connection !== "closed") return;
            controller.enqueue({ type: "error", errorText: chat.state.error?.message ?? "The chat was closed." });
          }
          stop();
          controller.close();
        };
        unsubscribe = chat.subscribe(update);
        update();
      },
      cancel: stop,
    });
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition() && this.chat.state.connection !== "closed") {
      await new Promise<void>((resolve) => {
        const stop = this.chat.subscribe(() => (stop(), resolve()));
      });
    }
  }
}

/** Writes how a reply grows as the chunks of one message. */
class ReplyWriter {
  #begun = false;
  #open: { kind: "text" | "reasoning"; id: string } | null = null;
  #written = { text: "", reasoning: "" };
  #tools = new Map<string, ToolCall["status"]>();
  #parts = 0;

  constructor(private readonly enqueue: (chunk: Chunk) => void) {}

  write(turn: ChatTurn): void {
    const { user, reply } = turn;
    if (user?.status === "unsent") return this.enqueue({ type: "error", errorText: user.error?.message ?? "The budget is used up." });
    if (!reply) return;
    if (!this.#begun) this.enqueue({ type: "start", messageId: reply.id });
    this.#begun = true;
    this.#grow("reasoning", reply.reasoning);
    reply.tools.forEach((tool) => this.#tool(tool));
    this.#grow("text", reply.text);
    if (reply.status !== "streaming") this.#end(reply);
  }

  #grow(kind: "text" | "reasoning", whole: string): void {
    const before = this.#written[kind];
    if (!whole.startsWith(before) || whole === before) return; // what was streamed cannot be taken back: see `text` of the metadata
    if (this.#open?.kind !== kind) {
      this.#close();
      this.#open = { kind, id: String(this.#parts++) };
      this.enqueue({ type: `${kind}-start`, id: this.#open.id });
    }
    this.enqueue({ type: `${kind}-delta`, id: this.#open.id, delta: whole.slice(before.length) });
    this.#written[kind] = whole;
  }

  #tool(tool: ToolCall): void {
    const { id: toolCallId, name: toolName, status } = tool;
    const known = this.#tools.get(toolCallId);
    if (known === status) return;
    this.#tools.set(toolCallId, status);
    this.#close();
    if (!known) {
      const input = inputOf(tool);
      this.enqueue({ type: "tool-input-available", toolCallId, toolName, input, dynamic: true, providerExecuted: true });
    }
    if (status === "success") {
      this.enqueue({ type: "tool-output-available", toolCallId, output: { status }, dynamic: true, providerExecuted: true });
    } else if (status !== "running") {
      this.enqueue({ type: "tool-output-error", toolCallId, errorText: status, dynamic: true, providerExecuted: true });
    }
  }

  #end(reply: ChatMessage): void {
    this.#close();
    const messageMetadata = metadataOf(reply, this.#written.text);
    this.enqueue({ type: "message-metadata", messageMetadata });
    if (reply.status === "failed") this.enqueue({ type: "error", errorText: reply.error?.message ?? "The reply failed." });
    else if (reply.status === "partial") this.enqueue({ type: "abort" });
    else this.enqueue({ type: "finish", messageMetadata });
  }

  #close(): void {
    if (this.#open) this.enqueue({ type: `${this.#open.kind}-end`, id: this.#open.id });
    this.#open = null;
  }
}

/** Turns that have ended as messages of the SDK, and the user's messages of those that have not. `shown`: messages of the
 * SDK, of which replies that still run are taken over. */
export function uiMessages(turns: readonly ChatTurn[], shown: readonly AgentMessage[] = []): AgentMessage[] {
  return turns.flatMap(({ user, reply }) => {
    const messages: AgentMessage[] = [];
    if (user) messages.push({ id: user.id, role: user.role, parts: [{ type: "text", text: user.text }] });
    if (reply?.status === "streaming") messages.push(...shown.filter(({ id }) => id === reply.id));
    else if (reply) messages.push(uiReply(reply));
    return messages;
  });
}

function uiReply(reply: ChatMessage): AgentMessage {
  const parts: AgentMessage["parts"] = [];
  if (reply.reasoning) parts.push({ type: "reasoning", text: reply.reasoning, state: "done" });
  for (const tool of reply.tools) {
    const call = { type: "dynamic-tool" as const, toolName: tool.name, toolCallId: tool.id, input: inputOf(tool) };
    if (tool.status === "success") parts.push({ ...call, state: "output-available", output: { status: tool.status } });
    else parts.push({ ...call, state: "output-error", errorText: tool.status });
  }
  if (reply.text) parts.push({ type: "text", text: reply.text, state: "done" });
  return { id: reply.id, role: "assistant", metadata: metadataOf(reply, reply.text), parts };
}

function metadataOf({ turnId, cost, costStatus, usage, note, text }: ChatMessage, streamed: string): ReplyMetadata {
  return { turnId: turnId!, cost, costStatus, usage, note, ...(text !== streamed && { text }) };
}

function inputOf({ arguments: text, truncated }: ToolCall): unknown {
  try {
    return truncated ? text : JSON.parse(text);
  } catch {
    return text;
  }
}
