// The one error type of this package, made from whatever the server or the network answers.
import type { ErrorCode, ErrorFrame, FieldProblem, Problem, TurnError } from "./wire.js";

/** `network`: the server could not be reached. `closed`: the chat was closed. `not_signed_in`: `getToken` had no token. */
export type ChatErrorCode = ErrorCode | "network" | "closed" | "not_signed_in";

/** What is known about a failure. A plain object, or a ChatError. */
export interface ErrorInfo {
  readonly code: ChatErrorCode;
  /** A sentence for people. */
  readonly message: string;
  /** Whether the same request may succeed later. */
  readonly retryable: boolean;
  /** Seconds, if the server knows. */
  readonly retryAfter: number | null;
  /** Of an invalid request: which fields are at fault. */
  readonly errors: readonly FieldProblem[];
  /** Of a budget that is used up: dollars as decimal strings, and a time. */
  readonly budget: { readonly spent: string; readonly limit: string; readonly resetsAt: string } | null;
  /** Quote it to the operator: the server's logs have it too. */
  readonly requestId: string | null;
}

const UNKNOWN = { retryable: false, retryAfter: null, errors: [], budget: null, requestId: null };

export class ChatError extends Error implements ErrorInfo {
  override readonly name = "ChatError";
  declare readonly retryable: boolean;
  declare readonly retryAfter: number | null;
  declare readonly errors: ErrorInfo["errors"];
  declare readonly budget: ErrorInfo["budget"];
  declare readonly requestId: string | null;

  constructor(
    readonly code: ChatErrorCode,
    message: string,
    info: Partial<ErrorInfo> = {},
    cause?: unknown,
  ) {
    super(message, { cause });
    Object.assign(this, UNKNOWN, info);
  }

  toJSON(): ErrorInfo {
    return { ...this, message: this.message };
  }
}

/** From an `error` frame, a failed turn's `error`, or the problem of an HTTP answer. */
export function chatError(from: ErrorFrame | TurnError | Problem): ChatError {
  const { code, retryable, retry_after, spent, limit, resets_at, message, detail, errors, request_id } = from as ErrorFrame & Problem;
  return new ChatError(code, detail ?? message, {
    retryable,
    retryAfter: retry_after ?? null,
    errors: errors ?? [],
    budget: spent && limit && resets_at ? { spent, limit, resetsAt: resets_at } : null,
    requestId: request_id ?? null,
  });
}

export const notSignedIn = () => new ChatError("not_signed_in", "Sign in to use this.");

/** What an app's own function or the network threw, as an error of this package that may pass. */
export const networkError = (cause?: unknown): ChatError =>
  cause instanceof ChatError ? cause : new ChatError("network", "The server cannot be reached.", { retryable: true }, cause);
