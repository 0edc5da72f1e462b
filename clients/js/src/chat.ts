// The client: one object for one signed-in user. It joins the parts of this package and has no protocol of its own.
import { Connection, type OpenLink, type Status } from "./connection.js";
import { canShare, canStream, onWake, pause, tabStorage } from "./environment.js";
import { ChatError, type ErrorInfo } from "./errors.js";
import { withPage } from "./history.js";
import { isReady, type LinkFrame } from "./link.js";
import { type EventOf, type EventType, Listeners } from "./listeners.js";
import { type Answered, Outbox, type OutboxStorage, retryId } from "./outbox.js";
import { acknowledged, ended, reduce, reopened } from "./reduce.js";
import { Rest } from "./rest.js";
import { openSocket, type WebSocketClass } from "./socket.js";
import { type ChatMessage, type ChatState, type ChatTurn, INITIAL, isOpen, localTurn, newMessage, withTurns } from "./state.js";
import type { Tabs } from "./tabs.js";
import type { GetToken } from "./tokens.js";
import type { Agent, History, ReadyFrame, SessionEvent, Turn } from "./wire.js";

export interface ChatOptions {
  /** The server: `https://chat.example.com`. */
  url: string;
  /** The user's access token. It is asked for often, so return a cached one while that is valid. */
  getToken: GetToken;
  /** `auto` (the default) uses a WebSocket, and an event stream where WebSockets do not get through. */
  transport?: "auto" | "websocket" | "sse";
  /** Whether tabs of the same user share one connection. By default they do, where the browser allows it. */
  shareTabs?: boolean;
  /** Where messages that were not accepted yet survive a reload. By default sessionStorage, null for nowhere. */
  storage?: OutboxStorage | null;
  /** For runtimes without a global WebSocket: a class with the browser's interface, such as that of `ws`. */
  WebSocket?: WebSocketClass;
  /** How many messages a page of the history has, up to 100. */
  pageSize?: number;
}

export interface SendOptions {
  /** While another turn runs: wait (the default), be refused as `busy`, or stop everything else and run this one. */
  onBusy?: "enqueue" | "reject" | "interrupt";
  /** An id of your own for this message: 1 to 128 visible ASCII characters. The same id is never a second message. */
  id?: string;
}

const CLOSED = new ChatError("closed", "The chat was closed.");

/** Pages without TLS and React Native have no randomUUID. */
const newId = () => globalThis.crypto?.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;

export function createChat(options: ChatOptions): Chat {
  return new Chat(options);
}

export class Chat {
  #state: ChatState = INITIAL;
  readonly #watchers = new Set<() => void>();
  readonly #listeners = new Listeners();
  readonly #rest: Rest;
  readonly #outbox: Outbox;
  readonly #tabs: Promise<Tabs | null> | null;
  #connection: Connection;
  #stopWaking: () => void;
  #loading = new AbortController();
  #isNotifying = false;
  #isOver = false;

  constructor(private readonly options: ChatOptions) {
    this.#rest = new Rest(`${options.url.replace(/\/+$/, "")}/api/v1`, options.getToken);
    const storage = options.storage === undefined ? tabStorage() : options.storage;
    this.#outbox = new Outbox((command) => this.#transmit(command), (id, error) => this.#mark(id, { error }), storage);
    const current = () => ({ state: this.#state, cursor: this.#connection.cursor });
    const isShared = options.shareTabs !== false && canShare();
    this.#tabs = isShared ? import("./tabs.js").then(({ Tabs }) => new Tabs(current), () => null) : null;
    this.#connection = this.#connected();
    this.#stopWaking = onWake(() => this.#connection.wake());
  }

  /** What to render. It is never changed: each change makes a new one. */
  get state(): ChatState {
    return this.#state;
  }

  /** Be called after each change of the state. Returns a function that ends it. */
  subscribe = (watcher: () => void): (() => void) => {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  };

  /** Be called for each event of a type, such as `turn.completed`. Returns a function that ends it. */
  on<T extends EventType>(type: T, listener: (event: EventOf<T>) => void): () => void {
    return this.#listeners.on(type, listener);
  }

  /** All events from now on: `for await (const event of chat.events())`. */
  events(): AsyncIterableIterator<SessionEvent> {
    return this.#listeners[Symbol.asyncIterator]();
  }

  /** Send a message, now or when there is a connection again. It is in `state.messages` at once.
   *
   * Resolves to the id of its turn when the server has stored it. Rejects with ChatError if it was refused; the message
   * then has `status: "refused"`, and can be sent again with `retry`, or removed with `discard`. */
  send(text: string, { onBusy = "enqueue", id = newId() }: SendOptions = {}): Promise<string> {
    const user = newMessage({ id, turnId: null, role: "user", text, status: "sending", createdAt: new Date().toISOString() });
    const known = localTurn(this.#state, id);
    const others = this.#state.turns.filter((turn) => turn !== known);
    this.#show([...others, { id: null, attempt: 0, user, reply: null }]);
    return this.#command({ type: "message", id, client_message_id: id, content: text, on_busy: onBusy });
  }

  /** Stop everything that runs or waits, and answer this. */
  interrupt(text: string): Promise<string> {
    return this.send(text, { onBusy: "interrupt" });
  }

  /** Stop a turn: the given one, else the one that runs, else the first that waits. The text so far is kept. */
  cancel(turnId: string | null | undefined = this.#state.reply?.turnId ?? this.#state.queue[0]): Promise<string> {
    return this.#command({ type: "cancel", id: `cancel:${turnId}`, turn_id: turnId ?? undefined });
  }

  /** Try a message with `canRetry` again: the same turn with a new reply, or the sending of a refused message. */
  retry(what: ChatMessage | string): Promise<string> {
    const message = typeof what === "string" ? null : what;
    if (message && message.turnId === null) return this.send(message.text, { id: message.id });
    const turn_id = message?.turnId ?? (what as string);
    return this.#command({ type: "retry", id: retryId(turn_id), turn_id });
  }

  /** Remove a refused message. */
  discard(message: ChatMessage): void {
    if (message.status !== "refused") return;
    this.#show(this.#state.turns.filter((turn) => turn.user?.id !== message.id));
  }

  /** A turn that is shown, when it has ended: `(await chat.ended(await chat.send("Hello"))).reply.text`. */
  async ended(turnId: string): Promise<ChatTurn> {
    for (;;) {
      const turn = this.#state.turns.find(({ id }) => id === turnId);
      if (!turn) throw new ChatError("not_found", "There is no such turn.");
      if (!isOpen(turn)) return turn;
      if (this.#state.connection === "closed") throw this.#state.error ?? CLOSED;
      await new Promise<void>((resolve) => {
        const stop = this.subscribe(() => (stop(), resolve()));
      });
    }
  }

  /** Load older messages into `state.messages`. Resolves to whether there are more; nothing is loaded while the server
   * cannot be reached. */
  async loadOlder(): Promise<boolean> {
    const { isLoading, hasMore, before } = this.#state.history;
    if (isLoading || !hasMore) return hasMore;
    const signal = this.#load(true);
    try {
      this.#change(withPage(this.#state, await this.#page(before, signal)));
    } catch {
      if (!signal.aborted) this.#load(false);
    }
    return this.#state.history.hasMore;
  }

  /** Connect again after `connection: "closed"`, for example once the user has signed in again. */
  reconnect(): void {
    const old = this.#connection;
    this.#connection = this.#connected();
    old.stop();
  }

  /** End the connection and everything that waits for it. Call it when the user signs out. Messages that were not
   * accepted yet stay in `storage`, for the next chat of this user. */
  close(): void {
    this.#stopWaking();
    this.#connection.stop();
    void this.#tabs?.then((tabs) => tabs?.close());
    this.#isOver = true;
    this.#outbox.clear(CLOSED);
    this.#listeners.emit(null);
  }

  // -- the connection ---------------------------------------------------------------------------------------------

  #connected(): Connection {
    const { transport = "auto", getToken } = this.options;
    const Socket = this.options.WebSocket ?? (globalThis.WebSocket as WebSocketClass | undefined);
    const transports: (() => Promise<OpenLink>)[] = [];
    const add = (load: () => OpenLink | Promise<OpenLink>) => {
      transports.push(async () => {
        const open = await load();
        return (await this.#tabs)?.shared(open) ?? open;
      });
    };
    if (transport !== "sse" && Socket) add(() => openSocket.bind(null, Socket));
    if (transport !== "websocket" && canStream()) add(async () => (await import("./sse.js")).openStream.bind(null, this.#rest));
    if (!transports.length) throw new ChatError("network", "Pass WebSocket.");
    const connection: Connection = new Connection({
      api: this.#rest.api,
      getToken,
      transports,
      frame: (frame) => this.#receive(frame),
      status: (status, error) => this.#connection === connection && this.#showStatus(status, error),
    });
    queueMicrotask(() => void connection.run());
    return connection;
  }

  #showStatus(connection: Status, error: ChatError | null): void {
    this.#change({ ...this.#state, connection, error });
    if (connection === "closed") this.#load(false);
  }

  #receive(frame: LinkFrame): void {
    const retried = this.#outbox.receive(frame);
    if (retried) this.#change(reopened(this.#state, retried));
    if (isReady(frame)) this.#greet(frame.user_id);
    if (frame.type === "history.deleted") this.#load(false);
    this.#change(reduce(this.#state, frame));
    if (isReady(frame)) {
      this.#outbox.flush();
      // What another tab loads stays there; what was asked for before the connection broke may never be answered.
      const isMissed = this.#state.history.isLoading || (frame.type === "ready" && !frame.resumed);
      if (isMissed) void this.#reload((frame as ReadyFrame).turn?.turn_id);
    }
    if ("seq" in frame) this.#listeners.emit(frame);
  }

  /** The first connection of a user: nobody else's messages stay, and those of a previous page are sent. */
  #greet(userId: string): void {
    if (this.#state.userId === userId) return;
    if (this.#state.userId) {
      this.#outbox.clear(CLOSED);
      this.#change({ ...INITIAL, connection: "online" });
    }
    for (const message of this.#outbox.restore(userId)) {
      void this.send(message.content, { id: message.client_message_id, onBusy: message.on_busy ?? "enqueue" });
    }
  }

  /** Load what the events do not tell: turns that ended without a connection, the newest messages, the agent's status.
   * `running`: the turn that is known to run. */
  async #reload(running?: string): Promise<void> {
    const signal = this.#load(true);
    const { turns, queue } = this.#state;
    const old = new Map(turns.filter(({ id }) => ![null, running, ...queue].includes(id)).map((turn) => [turn.id, turn]));
    for (let wait = 1000; !signal.aborted; wait = Math.min(wait * 2, 30_000)) {
      try {
        const { agent } = this.#state;
        const [page, { status, reason }] = await Promise.all([this.#page(null, signal), this.#rest.json<Agent>("agent/status", { signal })]);
        const unknown = this.#state.turns.filter((turn) => isOpen(turn) && old.has(turn.id));
        await Promise.all(unknown.map(({ id }) => this.#readTurn(id!, signal)));
        if (signal.aborted) return;
        this.#change(withPage(this.#state, page, old));
        if (this.#state.agent === agent) this.#change({ ...this.#state, agent: { status, reason } }); // no event came meanwhile
        return;
      } catch (error) {
        const { over, end } = pause(wait);
        signal.onabort = end;
        if (!(error as ChatError).retryable) this.#load(false);
        await over;
      }
    }
  }

  /** Begin to load, or end it: what was loaded before is given up. Returns the signal of this load's end. */
  #load(isLoading: boolean): AbortSignal {
    this.#loading.abort();
    this.#loading = new AbortController();
    this.#change({ ...this.#state, history: { ...this.#state.history, isLoading } });
    return this.#loading.signal;
  }

  #page(before: string | null, signal: AbortSignal): Promise<History> {
    const query = `include=steps&limit=${this.options.pageSize ?? 50}${before ? `&before=${encodeURIComponent(before)}` : ""}`;
    return this.#rest.json<History>(`chat/history?${query}`, { signal });
  }

  /** Take the end of a turn from the server, if it has ended. A turn that does not exist any more is not shown either. */
  async #readTurn(turnId: string, signal: AbortSignal): Promise<void> {
    try {
      const turn = await this.#rest.json<Turn>(`chat/turns/${turnId}`, { signal });
      if (!signal.aborted) this.#change(ended(this.#state, turn));
    } catch (error) {
      if ((error as ChatError).code !== "not_found") throw error;
      this.#show(this.#state.turns.filter(({ id }) => id !== turnId));
    }
  }

  // -- commands ---------------------------------------------------------------------------------------------------

  /** The promise may be ignored: what a UI needs is in the state. */
  #command(command: Answered): Promise<string> {
    const { id } = command;
    const answer = this.#isOver ? Promise.reject<string>(CLOSED) : this.#outbox.add(command);
    answer.then(
      (turnId) => this.#change(acknowledged(this.#state, id, turnId)),
      (error: ChatError) => error.code !== "closed" && this.#mark(id, { status: "refused", error, canRetry: true }),
    );
    return answer;
  }

  #transmit(command: Answered): void {
    const { size } = new Blob([JSON.stringify(command)]);
    if (size <= (this.#state.limits?.frame_bytes ?? size)) return this.#connection.send(command);
    import("./commands.js") // a frame cannot be that large
      .then(({ Commands }) => new Commands(this.#rest, (frame) => this.#receive(frame)).send(command))
      .catch(() => {}); // it is sent again after the next connect
  }

  /** Change a message that is not accepted yet, if this is the id of one. */
  #mark(id: string, change: Partial<ChatMessage> & { error: ErrorInfo | null }): void {
    const turn = localTurn(this.#state, id);
    if (!turn?.user) return;
    const user = { ...turn.user, ...change };
    this.#show(this.#state.turns.map((other) => (other === turn ? { ...turn, user } : other)));
  }

  #show(turns: readonly ChatTurn[]): void {
    this.#change(withTurns(this.#state, turns));
  }

  #change(state: ChatState): void {
    this.#state = state;
    if (this.#isNotifying) return;
    this.#isNotifying = true;
    queueMicrotask(() => {
      this.#isNotifying = false;
      for (const watcher of [...this.#watchers]) watcher();
    });
  }
}
