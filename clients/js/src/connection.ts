// Keeps one link to the session open: it opens links, watches that they live, renews their token, and resumes from the
// last event after each. What it passes on is gapless and without repetition.
import { pause } from "./environment.js";
import { ChatError, networkError, notSignedIn } from "./errors.js";
import { isReady, type Link, type LinkEnd, type LinkFrame, type LinkHandlers, type LinkRequest, NO_CODE } from "./link.js";
import { pauseBefore } from "./policy.js";
import { claimsOf, type GetToken } from "./tokens.js";
import type { Command, SessionEvent } from "./wire.js";

export type OpenLink = (request: LinkRequest, handlers: LinkHandlers) => Link;
export type Status = "connecting" | "online" | "offline" | "closed";

export interface ConnectionOptions {
  api: string;
  getToken: GetToken;
  /** The ways to connect, the best first; each is loaded when it is needed. The next one is tried where the first does
   * not get through. */
  transports: readonly (() => Promise<OpenLink>)[];
  frame(frame: LinkFrame): void;
  status(status: Status, error: ChatError | null): void;
}

const READY_WITHIN = 15_000; // milliseconds; the server may take four seconds to find a free slot
const SILENCE = 30_000; // the server writes at least every 25 s where the client can see it
const PROBE = 5_000;
const LASTED = 10_000; // a connection that lived so long, or brought an event, was no failure
const RENEW_BEFORE = 60_000;
const LONGEST_TIMER = 2 ** 31 - 1;
const BLOCKED_AFTER = 2; // attempts of the first transport that never got through

export class Connection {
  cursor: string | null = null;
  #link: Link | null = null;
  #isReady = false;
  #isStopped = false;
  #failures = 0;
  #blocked = 0;
  #transport = 0;
  #expired = false;
  #endLink: ((end: LinkEnd) => void) | null = null;
  #endPause: (() => void) | null = null;
  #watchdog: ReturnType<typeof setTimeout> | undefined;
  #renewal: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly options: ConnectionOptions) {}

  /** Stay connected until `stop`, or until the server refuses. */
  async run(): Promise<void> {
    const { status } = this.options;
    while (!this.#isStopped) {
      if (this.#failures < 2) status("connecting", null); // later attempts leave it offline, until one succeeds
      const end = await this.#connect();
      if (this.#isStopped) return;
      this.#expired = end.code === 4001;
      if (end.error?.code === "invalid_cursor") this.cursor = null; // the next connection begins without one
      const milliseconds = pauseBefore(end, this.#failures, Math.random());
      if (milliseconds === null) return status("closed", end.error ?? refusal(end.code));
      status("offline", end.error ?? networkError());
      const { over, end: endPause } = pause(milliseconds);
      this.#endPause = endPause;
      await over;
    }
  }

  stop(): void {
    this.#isStopped = true;
    this.#endPause?.();
    this.#endLink?.({ code: 1000, error: null });
    this.options.status("closed", null);
  }

  /** The network is back or gone, or the page is visible again: reconnect now, or find out whether the connection lives. */
  wake(): void {
    this.#endPause?.();
    if (this.#isReady && this.#link?.probe()) this.#watch(PROBE);
  }

  /** Without a connection it does nothing. */
  send(command: Command): void {
    if (this.#isReady) this.#link?.send(command);
  }

  async #connect(): Promise<LinkEnd> {
    const { transports, getToken } = this.options;
    this.#transport = this.#blocked >= BLOCKED_AFTER ? 1 % transports.length : 0;
    let token: string | null;
    let open: OpenLink;
    try {
      [token, open] = await Promise.all([getToken({ expired: this.#expired }), transports[this.#transport]!()]);
    } catch (cause) {
      this.#failures += 1;
      return { code: NO_CODE, error: networkError(cause) };
    }
    if (!token) return { code: 4500, error: notSignedIn() };
    if (this.#isStopped) return { code: 1000, error: null };

    const began = Date.now();
    const end = await this.#untilEnd(open, token);
    const gotThrough = this.#isReady || end.code !== NO_CODE;
    this.#failures = this.#isReady && Date.now() - began > LASTED ? 0 : this.#failures + 1;
    // A transport that fails before it gets through may be blocked in this network: try the other one, but come back to
    // the first whenever that one has ended.
    if (this.#transport) this.#blocked = gotThrough ? BLOCKED_AFTER - 1 : 0;
    else this.#blocked = gotThrough ? 0 : this.#blocked + 1;
    this.#isReady = false;
    return end;
  }

  #untilEnd(open: OpenLink, token: string): Promise<LinkEnd> {
    return new Promise((resolve) => {
      this.#endLink = (end) => {
        clearTimeout(this.#watchdog);
        clearTimeout(this.#renewal);
        this.#endLink = null;
        this.#link?.close();
        this.#link = null;
        resolve(end);
      };
      this.#watch(READY_WITHIN);
      const ended = (end: LinkEnd) => this.#endLink?.(end);
      try {
        this.#link = open(
          { api: this.options.api, token, cursor: this.cursor },
          { frame: (frame) => this.#receive(frame, token), alive: () => this.#alive(), ended },
        );
      } catch (cause) {
        ended({ code: NO_CODE, error: networkError(cause) }); // the page's policy forbids it, or the address is none
      }
    });
  }

  #receive(frame: LinkFrame, token: string): void {
    this.#alive();
    if (isReady(frame)) {
      if (!("resumed" in frame && frame.resumed)) this.cursor = frame.cursor;
      this.#isReady = true;
      this.#alive();
      this.#renewLater(token);
      this.options.status("online", null);
    } else if ("seq" in frame && frame.seq != null && !this.#isNext(frame.epoch!, frame.seq, frame)) return;
    this.options.frame(frame);
  }

  /** Whether the event follows the last one. A repeated one is ignored; a gap is closed by resuming. */
  #isNext(epoch: string, seq: number, event: SessionEvent): boolean {
    const [lastEpoch, lastSeq] = (this.cursor ?? "").split(":");
    const first = ("first_seq" in event && event.first_seq) || seq;
    if (epoch === lastEpoch && seq <= Number(lastSeq)) return false;
    if (epoch !== lastEpoch || first !== Number(lastSeq) + 1) {
      this.#endLink?.({ code: 4002, error: null });
      return false;
    }
    this.cursor = `${epoch}:${seq}`;
    this.#failures = 0;
    return true;
  }

  #alive(): void {
    if (this.#isReady) this.#watch(SILENCE);
  }

  /** End the link unless something arrives within this time; ask for it first. */
  #watch(milliseconds: number): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      if (milliseconds !== SILENCE) return this.#endLink?.({ code: NO_CODE, error: null });
      this.#link?.probe();
      this.#watch(2 * PROBE);
    }, milliseconds);
  }

  #renewLater(token: string): void {
    clearTimeout(this.#renewal);
    const { exp } = claimsOf(token);
    if (!exp) return;
    const link = this.#link;
    const renew = async () => {
      let fresh: string | null = null;
      try {
        fresh = await this.options.getToken({ expired: false });
      } catch {} // the old one is still valid: ask again
      if (this.#link !== link) return;
      if (fresh && fresh !== token) link?.renew(fresh);
      this.#renewLater(fresh ?? token);
    };
    const remaining = exp * 1000 - Date.now();
    const wait = remaining > RENEW_BEFORE ? remaining - RENEW_BEFORE : Math.max(remaining / 2, 5000);
    this.#renewal = setTimeout(() => void renew(), Math.min(wait, LONGEST_TIMER));
  }

}

/** Why it does not connect again, where the server said no more than a close code. */
const refusal = (code: number) =>
  code === 4503 ? new ChatError("account_blocked", "This account is closed.") : new ChatError("unauthorized", "Sign in again.");
