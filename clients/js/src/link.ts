// A link is one connection to the session. The kinds of links (WebSocket, event stream, another tab) look the same to
// what is above them: frames come in, commands go out, and it ends once.
import type { ChatError } from "./errors.js";
import type { ChatState } from "./state.js";
import type { Command, Frame, ReadyFrame } from "./wire.js";

/** Only between tabs: the state of the tab that has the connection, and how another takes it over. */
export interface TabFrame {
  type: "tab.state";
  user_id: string;
  cursor: string;
  adopt(state: ChatState): ChatState;
}

export type LinkFrame = Frame | TabFrame;

/** Whether the frame tells where the session stands: events follow. */
export const isReady = (frame: LinkFrame): frame is ReadyFrame | TabFrame => frame.type === "ready" || frame.type === "tab.state";

export interface LinkRequest {
  /** The address up to and including `/api/v1`. */
  api: string;
  token: string;
  cursor: string | null;
}

export interface LinkHandlers {
  frame(frame: LinkFrame): void;
  /** Something arrived that is no frame: the other side is alive. */
  alive(): void;
  ended(end: LinkEnd): void;
}

export interface LinkEnd {
  /** A close code of the WebSocket protocol or of docs/errors.md; NO_CODE without one. */
  code: number;
  /** What the server said. */
  error: ChatError | null;
}

export interface Link {
  send(command: Command): void;
  /** Use a fresh token of the same user. */
  renew(token: string): void;
  /** Make the other side answer something. Returns false if that is not possible. */
  probe(): boolean;
  /** End it; `ended` is not called. */
  close(): void;
}

export const NO_CODE = 1006;
