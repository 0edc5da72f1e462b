// Records the frames of the WebSocket for the inspector, in development. Tabs of one user share a connection; the tab that
// has it passes what it records on to the others, so that each tab's inspector shows the same. Access tokens are left out.
import { effect, signal } from "@preact/signals";
import { about } from "./about";
import { user } from "./session";
import { entryOf, type WireEntry, withEarlier } from "./wire_entry";

export const MOST = 1_000; // entries
export const wire = signal<readonly WireEntry[]>([]);
/** Which tab has the WebSocket; null if none has. */
export const holder = signal<"here" | "elsewhere" | null>(null);
/** Until when the line is held down, in milliseconds; 0: it is not. */
export const cutUntil = signal(0);

type TabMessage = { kind: "entry"; entry: WireEntry } | { kind: "hello" } | { kind: "all"; entries: readonly WireEntry[] } | { kind: "cut"; seconds: number };

const tab = Math.random().toString(36).slice(2, 8);
const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("console.wire") : null;
const post = (message: TabMessage) => channel?.postMessage(message);
const sockets = new Set<TappedSocket>();
let last = 0;

export const isTapped = (): boolean => about.value?.environment !== "production"; // as long as it is not known, it may be

/** The browser's WebSocket, with a record of its frames. */
export class TappedSocket extends WebSocket {
  #isCut = false;

  constructor(url: string) {
    super(url);
    sockets.add(this);
    const after = new URL(url).searchParams.get("after");
    this.addEventListener("open", () => this.#record("note", "open", JSON.stringify({ after })));
    this.addEventListener("message", (event) => {
      if (this.#isCut) return event.stopImmediatePropagation();
      this.#record("in", null, event.data as string);
    });
    this.addEventListener("close", ({ code, reason }) => {
      sockets.delete(this);
      if (!this.#isCut) this.#record("note", "close", JSON.stringify({ code, reason }));
      if (!sockets.size) holder.value = null;
    });
  }

  override send(data: string): void {
    if (this.#isCut) return;
    this.#record("out", null, data);
    super.send(data);
  }

  override close(code?: number, reason?: string): void {
    if (this.#isCut) return; // a line that is cut carries no goodbye
    super.close(code, reason);
  }

  /** Nothing goes through any more, in either direction, and the page finds that out. Returns how to end the socket. */
  cut(): () => void {
    this.#record("note", "cut", "{}");
    this.#isCut = true;
    this.dispatchEvent(new CloseEvent("close", { code: 1006, wasClean: false }));
    return () => super.close();
  }

  #record(direction: WireEntry["direction"], type: string | null, text: string): void {
    if (!isTapped()) return;
    holder.value = "here";
    const entry = entryOf(direction, type, text, Date.now(), `${tab}:${++last}`);
    add([entry]);
    post({ kind: "entry", entry });
  }
}

function add(entries: readonly WireEntry[]): void {
  wire.value = [...wire.value, ...entries].slice(-MOST);
}

/** Lose the connection without a goodbye, as a lost network does, and hold it down. */
export function cutLine(seconds: number): void {
  if (holder.value !== "here") return post({ kind: "cut", seconds });
  const ends = [...sockets].map((socket) => socket.cut());
  cutUntil.value = Date.now() + seconds * 1000;
  setTimeout(() => {
    cutUntil.value = 0;
    for (const end of ends) end();
    dispatchEvent(new Event("online")); // as the browser does when the network is back
  }, seconds * 1000);
}

if (channel) {
  channel.onmessage = ({ data }) => {
    const message = data as TabMessage;
    if (message.kind === "hello" && holder.value === "here") post({ kind: "all", entries: wire.value });
    if (message.kind === "cut" && holder.value === "here") cutLine(message.seconds);
    if (message.kind === "all") wire.value = withEarlier(wire.value, message.entries).slice(-MOST);
    if (message.kind === "entry") add([message.entry]);
    if (message.kind === "entry" || message.kind === "all") holder.value = "elsewhere";
  };
  post({ kind: "hello" });
}

let userId: string | null = null;
effect(() => {
  const id = user.value?.id ?? null;
  if (userId !== id || !isTapped()) wire.value = [];
  userId = id;
});
