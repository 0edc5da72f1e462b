// The WebSocket link. The token goes into the first frame, since browsers cannot set headers and URLs are logged.
import { ChatError, chatError } from "./errors.js";
import { type Link, type LinkHandlers, type LinkRequest, NO_CODE } from "./link.js";
import type { Command, Frame } from "./wire.js";

export type WebSocketClass = new (url: string) => WebSocket;

export function openSocket(Socket: WebSocketClass, { api, token, cursor }: LinkRequest, handlers: LinkHandlers): Link {
  const query = cursor ? `?after=${encodeURIComponent(cursor)}` : "";
  const socket = new Socket(`${api.replace(/^http/, "ws")}/chat/stream${query}`);
  let error: ChatError | null = null;
  let isOpen = true;

  const send = (command: Command) => {
    if (socket.readyState === 1) socket.send(JSON.stringify(command));
  };
  const end = (code: number) => {
    if (!isOpen) return;
    isOpen = false;
    handlers.ended({ code, error });
  };

  socket.onopen = () => send({ type: "auth", token });
  socket.onmessage = ({ data }) => {
    if (!isOpen) return;
    const frame = JSON.parse(data as string) as Frame;
    if (frame.type === "error" && frame.id == null) error = chatError(frame);
    handlers.frame(frame);
  };
  socket.onerror = () => end(NO_CODE); // some runtimes send no `close` after it
  socket.onclose = ({ code }) => end(code);

  return {
    send,
    renew: (fresh) => send({ type: "auth", token: fresh }),
    probe: () => (send({ type: "ping" }), true),
    close() {
      isOpen = false;
      socket.close();
    },
  };
}
