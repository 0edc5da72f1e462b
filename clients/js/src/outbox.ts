// Commands that the server has not answered yet. Each is sent again after every reconnect, with the same id, until it is
// acknowledged or refused: the server makes one turn of a message however often it arrives.
import { type ChatError, chatError } from "./errors.js";
import type { LinkFrame } from "./link.js";
import type { CancelFrame, ErrorFrame, MessageFrame, RetryFrame } from "./wire.js";

/** Errors that pass by themselves, so that waiting is better than asking the user. */
const PASSES = /^(rate_limited|overloaded|draining|internal_error|network)$|_unavailable$/;
const isTemporary = ({ retryable, code }: ChatError) => retryable && PASSES.test(code);
const TRIES = 6;
const LONGEST_PAUSE = 60; // seconds

export type Answered = (MessageFrame | CancelFrame | RetryFrame) & { id: string };

interface Pending {
  command: Answered;
  answer: Promise<string>;
  sent: number;
  refusals: number;
  timer?: ReturnType<typeof setTimeout>;
  resolve(turnId: string): void;
  reject(error: ChatError): void;
}

/** The id of the command that retries a turn. */
export const retryId = (turnId: string) => `retry:${turnId}`;

/** Where messages stay over a reload: sessionStorage, or anything like it. */
export type OutboxStorage = Pick<Storage, "getItem" | "setItem" | "removeItem">;

export class Outbox {
  readonly #pending = new Map<string, Pending>();
  #key: string | null = null;

  constructor(
    private readonly transmit: (command: Answered) => void,
    /** Called when the server put a message off; it is sent again by itself. */
    private readonly postponed: (id: string, error: ChatError) => void,
    private readonly storage: OutboxStorage | null,
  ) {}

  /** Send until it is answered. Resolves to the turn's id. Rejects with ChatError. */
  add(command: Answered): Promise<string> {
    const known = this.#pending.get(command.id);
    if (known) return known.answer;
    const pending = { command, sent: 0, refusals: 0 } as Pending;
    pending.answer = new Promise((resolve, reject) => Object.assign(pending, { resolve, reject }));
    this.#pending.set(command.id, pending);
    this.#save();
    this.#send(pending);
    return pending.answer;
  }

  /** Messages of this user that a previous page could not send. Call it when the user is known. */
  restore(userId: string): MessageFrame[] {
    this.#key = `chat.outbox.${userId}`;
    let saved: MessageFrame[] = [];
    try {
      saved = JSON.parse(this.storage?.getItem(this.#key) ?? "[]") as MessageFrame[];
    } catch {} // not ours, or not allowed
    this.#save();
    return saved.filter((message) => !this.#pending.has(message.client_message_id));
  }

  /** The link begins, or begins anew: send everything that waits for an answer. */
  flush(): void {
    for (const pending of this.#pending.values()) if (!pending.timer) this.#send(pending);
  }

  /** Returns the id of the turn that is retried, if this is the first that is heard of it. */
  receive(frame: LinkFrame): string | null {
    if (frame.type === "error") this.#refuse(frame);
    if (frame.type !== "ack" && frame.type !== "turn.queued" && frame.type !== "turn.started") return null;
    const { turn_id } = frame; // the event may come before the ack, or instead of a lost one
    const ids = frame.type === "ack" ? [frame.id] : [frame.client_message_id, retryId(frame.turn_id)];
    let retried = null;
    for (const id of ids) {
      const pending = id !== null && this.#pending.get(id);
      if (!pending || !turn_id) continue;
      this.#remove(pending).resolve(turn_id);
      if (pending.command.type === "retry") retried = turn_id;
    }
    return retried;
  }

  /** Give up on everything. What is stored stays, for the user whom it belongs to. */
  clear(error: ChatError): void {
    this.#key = null;
    for (const pending of [...this.#pending.values()]) this.#remove(pending).reject(error);
  }

  #send(pending: Pending): void {
    pending.sent += 1;
    this.transmit(pending.command);
  }

  #refuse(frame: ErrorFrame): void {
    const pending = frame.id != null && this.#pending.get(frame.id);
    if (!pending) return;
    const { command } = pending;
    const error = chatError(frame);
    if (error.code === "not_retryable" && command.type === "retry" && pending.sent > 1) {
      this.#remove(pending).resolve(command.turn_id); // the first one arrived, and its ack was lost
    } else if (isTemporary(error) && pending.refusals < TRIES) {
      pending.refusals += 1;
      const seconds = Math.min(error.retryAfter ?? 2 ** pending.refusals, LONGEST_PAUSE) * (1 + Math.random() / 4);
      pending.timer = setTimeout(() => {
        delete pending.timer;
        this.#send(pending);
      }, seconds * 1000);
      this.postponed(command.id, error);
    } else {
      this.#remove(pending).reject(error);
    }
  }

  #remove(pending: Pending): Pending {
    clearTimeout(pending.timer);
    this.#pending.delete(pending.command.id);
    this.#save();
    return pending;
  }

  #save(): void {
    if (!this.#key || !this.storage) return;
    const messages = [...this.#pending.values()].map(({ command }) => command).filter(({ type }) => type === "message");
    try {
      if (messages.length) this.storage.setItem(this.#key, JSON.stringify(messages));
      else this.storage.removeItem(this.#key);
    } catch {} // full: the messages are sent all the same, unless the page is reloaded
  }
}
