// Commands as REST requests, one after another so that messages keep their order. The answers become the frames that a
// socket would have answered.
import { type ChatError, networkError } from "./errors.js";
import type { Rest } from "./rest.js";
import type { Command, ErrorCode, Frame, Problem, Turn } from "./wire.js";

export class Commands {
  #last: Promise<void> = Promise.resolve();

  constructor(
    private readonly rest: Rest,
    private readonly answer: (frame: Frame) => void,
  ) {}

  send(command: Command): void {
    if (command.type === "auth" || command.type === "ping") return;
    this.#last = this.#last.then(() => this.#request(command));
  }

  async #request(command: Command): Promise<void> {
    const id = ("id" in command && command.id) || ("client_message_id" in command ? command.client_message_id : null);
    try {
      const turn = await this.#turn(command);
      this.#acknowledge(id, turn);
    } catch (cause) {
      const error = networkError(cause) as ChatError & { problem?: Problem };
      const stored = error.problem?.turn; // a stored message whose turn has ended badly
      if (stored) this.#acknowledge(id, stored);
      else this.answer(errorFrame(id, error));
    }
  }

  #turn(command: Command): Promise<Turn> {
    const post = (path: string, body?: object) =>
      this.rest.json<Turn>(path, { method: "POST", body: body ? JSON.stringify(body) : null, headers: { Prefer: "respond-async" } });
    if (command.type === "message") {
      const { client_message_id, content, on_busy } = command;
      return post("chat/message", { client_message_id, content, on_busy: on_busy ?? "enqueue", stream: false });
    }
    if (command.type === "retry") return post(`chat/turns/${command.turn_id}/retry`);
    const { turn_id } = command as { turn_id?: string };
    return post("chat/cancel", turn_id ? { turn_id } : {});
  }

  #acknowledge(id: string | null, turn: Turn): void {
    const message_id = turn.user_message.id;
    this.answer({ type: "ack", id, turn_id: turn.id, message_id, queue_position: turn.queue_position, duplicate: false });
    this.answer({ type: "turn.completed", turn, turn_id: turn.id, attempt: turn.attempt }); // ignored while it is open
  }
}

const errorFrame = (id: string | null, error: ChatError): Frame => ({
  type: "error",
  id,
  code: error.code as ErrorCode,
  message: error.message,
  retryable: error.retryable,
  retry_after: error.retryAfter,
  spent: error.budget?.spent,
  limit: error.budget?.limit,
  resets_at: error.budget?.resetsAt,
});
