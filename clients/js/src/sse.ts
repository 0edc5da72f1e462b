// The link for networks that block WebSockets: an event stream down, REST requests up.
import { type ChatError, networkError } from "./errors.js";
import { Commands } from "./commands.js";
import { type Link, type LinkEnd, type LinkHandlers, type LinkRequest, NO_CODE } from "./link.js";
import { errorOf, type Rest } from "./rest.js";
import type { Frame, ReconnectEvent } from "./wire.js";

/** Close codes of the reasons that the last event of a stream may have. After others it reconnects at once, or not at all. */
const CODES: Record<string, number> = {
  token_expired: 4001,
  unavailable: 1013,
  too_many_connections: 4004,
  slow_consumer: 4000,
  account_closed: 4503,
};
const RECONNECT = 1012;
const REFUSED = 4500;

export function openStream(rest: Rest, { api, token, cursor }: LinkRequest, handlers: LinkHandlers): Link {
  const abort = new AbortController();
  const commands = new Commands(rest, (frame) => abort.signal.aborted || handlers.frame(frame));

  const read = async (): Promise<LinkEnd> => {
    const query = cursor ? `?after=${encodeURIComponent(cursor)}` : "";
    const headers = { Authorization: `Bearer ${token}`, Accept: "text/event-stream" };
    const answer = await fetch(`${api}/chat/events${query}`, { headers, signal: abort.signal, cache: "no-store" });
    if (!answer.ok || !answer.body) return endOf(await errorOf(answer));
    for await (const data of events(answer.body, handlers.alive)) {
      const frame = JSON.parse(data) as Frame | ReconnectEvent;
      if (frame.type === "reconnect") return { code: CODES[frame.reason] ?? (frame.reconnect ? RECONNECT : REFUSED), error: null };
      handlers.frame(frame);
    }
    return { code: NO_CODE, error: null };
  };
  void read()
    .catch(() => ({ code: NO_CODE, error: networkError() }))
    .then((end) => {
      if (!abort.signal.aborted) handlers.ended(end);
      abort.abort();
    });

  return {
    send: (command) => commands.send(command),
    renew: () => {}, // the server ends the stream when its token expires; the next one has a fresh token
    probe: () => false, // the server writes a comment every 25 s
    close: () => abort.abort(),
  };
}

/** The close code that stands for an error of an HTTP answer, so that both kinds of links end alike. */
function closeCodeOf(error: ChatError): number {
  switch (error.code) {
    case "token_expired":
      return 4001;
    case "rate_limited":
      return 4004;
    case "unauthorized":
    case "not_signed_in":
      return 4500;
    case "account_blocked":
      return 4503;
    case "network":
      return NO_CODE;
    default:
      return error.retryable ? 1013 : 4501;
  }
}

const endOf = (error: ChatError): LinkEnd => ({ code: closeCodeOf(error), error });

/** The data of each event. Comments are reported as a sign of life. */
export async function* events(body: ReadableStream<Uint8Array>, alive: () => void = () => {}): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let data: string[] = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines.map((text) => text.replace(/\r$/, ""))) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
