// Several tabs of one user share one connection. A Web Lock elects the tab that has it (the leader); it passes frames on
// over a BroadcastChannel, and sends the commands of the others. When it closes, the next tab gets the lock and resumes.
import type { OpenLink } from "./connection.js";
import { type Link, type LinkFrame, type LinkHandlers, type LinkRequest, NO_CODE } from "./link.js";
import { type ChatState, isLocal, withTurns } from "./state.js";
import { claimsOf } from "./tokens.js";
import type { Command } from "./wire.js";

type TabMessage =
  /** A follower asks for the leader. `probe`: it needs no state. */
  | { type: "hello"; probe: boolean }
  /** There is a leader. It need not be connected. */
  | { type: "here" }
  /** JSON, since errors do not survive a structured clone. */
  | { type: "state"; json: string }
  | { type: "frame"; frame: LinkFrame }
  /** The leader's connection ended. */
  | { type: "ended" }
  | { type: "command"; command: Command };

const FROZEN_AFTER = 2_000; // milliseconds without an answer: the browser suspended the leader
const TAKEN_OVER = { code: 4002, error: null };

export class Tabs {
  #channel: BroadcastChannel | null = null;
  #isLeader = false;
  #release: (() => void) | null = null;
  #waiting: AbortController | null = null;
  /** The leader's connection. */
  #real: Link | null = null;
  #onMessage: (message: TabMessage) => void = () => {};
  #onRole: () => void = () => {};

  /** `current`: what a tab that joins must know. */
  constructor(private readonly current: () => { state: ChatState; cursor: string | null }) {}

  /** The same way to connect, but by one tab for all. */
  shared(open: OpenLink): OpenLink {
    return (request, handlers) => {
      const { sub } = claimsOf(request.token);
      if (!sub) return open(request, handlers);
      this.#join(`chat ${request.api} ${sub}`);
      return this.#isLeader ? this.#lead(open, request, handlers) : this.#follow(open, request, handlers);
    };
  }

  close(): void {
    this.#waiting?.abort();
    this.#release?.();
    this.#isLeader = false;
    this.#channel?.close();
    this.#channel = null;
  }

  #join(name: string): void {
    if (this.#channel?.name === name) return;
    this.close();
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#receive(data as TabMessage);
    this.#request({ signal: (this.#waiting = new AbortController()).signal });
  }

  /** Wait for the lock, or take it, and hold it until `close`, or until another tab takes it. */
  #request(options: LockOptions): void {
    const channel = this.#channel!;
    const hold = () =>
      new Promise<void>((resolve) => {
        if (this.#channel !== channel) return resolve(); // closed in the meantime
        this.#isLeader = true;
        this.#release = resolve;
        this.#post({ type: "here" });
        this.#onRole();
      });
    navigator.locks.request(channel.name, options, hold).catch(() => {
      if (this.#isLeader && this.#channel === channel) this.#robbed();
    });
  }

  #robbed(): void {
    this.#isLeader = false;
    if (this.#channel) this.#request({ signal: (this.#waiting = new AbortController()).signal });
    this.#onRole();
  }

  #post(message: TabMessage): void {
    this.#channel?.postMessage(message);
  }

  #receive(message: TabMessage): void {
    if (!this.#isLeader) return this.#onMessage(message);
    if (message.type === "command") this.#real?.send(message.command);
    if (message.type === "hello") {
      this.#post({ type: "here" });
      const { state, cursor } = this.current();
      if (message.probe || state.connection !== "online") return;
      const accepted = withTurns(state, state.turns.filter((turn) => !isLocal(turn)));
      this.#post({ type: "state", json: JSON.stringify({ state: accepted, cursor }) });
    }
  }

  #lead(open: OpenLink, request: LinkRequest, handlers: LinkHandlers): Link {
    let isOver = false;
    const end = (report: () => void, isRobbed = false) => {
      if (isOver) return;
      isOver = true;
      if (this.#real === link) this.#real = null;
      if (!isRobbed) this.#post({ type: "ended" }); // else the others have another leader by now
      report();
    };
    const link = open(request, {
      alive: handlers.alive,
      frame: (frame) => {
        handlers.frame(frame);
        this.#post({ type: "frame", frame });
      },
      ended: (reason) =>
        end(() => {
          if (reason.code >= 4500) this.close(); // for good: the others find out for themselves
          handlers.ended(reason);
        }),
    });
    this.#real = link;
    this.#onRole = () => end(() => handlers.ended(TAKEN_OVER), true);
    return { ...link, close: () => end(() => link.close()) };
  }

  #follow(open: OpenLink, request: LinkRequest, handlers: LinkHandlers): Link {
    let isJoined = false;
    let own: Link | null = null;
    const hello = (probe: boolean) => this.#post({ type: "hello", probe });
    const takeOver = setTimeout(() => {
      this.#waiting?.abort();
      this.#request({ steal: true });
    }, FROZEN_AFTER);

    this.#onMessage = (message) => {
      if (message.type === "here" || message.type === "state") clearTimeout(takeOver);
      handlers.alive();
      if (message.type === "state") {
        isJoined = true;
        const { state, cursor } = JSON.parse(message.json) as { state: ChatState; cursor: string };
        handlers.frame({ type: "tab.state", user_id: state.userId!, cursor, adopt: (own) => adopted(own, state) });
      } else if (message.type === "frame") {
        if (isJoined) handlers.frame(message.frame);
        else if (message.frame.type === "ready") hello(false);
      } else if (message.type === "ended" && isJoined) handlers.ended({ code: NO_CODE, error: null });
    };
    this.#onRole = () => {
      clearTimeout(takeOver);
      if (isJoined) handlers.ended(TAKEN_OVER);
      else own = this.#lead(open, request, handlers);
    };
    hello(false);

    return {
      send: (command) => (own ? own.send(command) : this.#post({ type: "command", command })),
      renew: (token) => own?.renew(token),
      probe: () => (own ? own.probe() : (hello(true), true)),
      close: () => {
        clearTimeout(takeOver);
        this.#onMessage = this.#onRole = () => {};
        own?.close();
      },
    };
  }
}

/** Take another tab's state, and keep what only this tab knows. */
function adopted(state: ChatState, other: ChatState): ChatState {
  const known = new Set(other.turns.map((turn) => turn.user?.id));
  const own = state.turns.filter((turn) => isLocal(turn) && !known.has(turn.user?.id));
  const { connection, error } = state;
  return withTurns({ ...other, connection, error }, [...other.turns, ...own]);
}
