// What a view shows when it has nothing to show: waiting, nothing there, something went wrong.
import type { ErrorInfo } from "@ai-chat-platform/client";
import type { ComponentChildren } from "preact";
import { type OwnSentences, sentence } from "../platform/problem_words";
import { Button } from "./button";
import { Icon, type IconName } from "./icon";
import type { Resource } from "./resource";
import { words } from "./words";

export function Waiting({ children }: { children?: ComponentChildren }) {
  return (
    <div class="waiting" role="status">
      <span class="spinner" />
      {children ?? words().loading}
    </div>
  );
}

export function Empty({ icon, title, children }: { icon: IconName; title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <Icon name={icon} />
      <strong>{title}</strong>
      {children}
    </div>
  );
}

export function Notice({ kind, children }: { kind?: "good" | "warn" | "bad"; children: ComponentChildren }) {
  return (
    <div class={`notice ${kind ?? ""}`}>
      <Icon name={kind === "good" ? "check" : kind ? "alert" : "info"} />
      <div class="grow">{children}</div>
    </div>
  );
}

/** Errors that an operator can do something about: they find the request by its id in the logs. */
const FOR_OPERATORS = /^(internal_error|model_error|key_refused|turn_timeout|\w+_unavailable)$/;

/** What happened, and whether to try again. `own`: sentences that say it better here than those for everybody. */
export function Problem({ error, onRetry, own }: { error: ErrorInfo; onRetry?: (() => void) | undefined; own?: OwnSentences }) {
  const t = words();
  return (
    <div class="notice bad" role="alert">
      <Icon name="alert" />
      <div class="grow stack tight">
        <span>{sentence(error, own)}</span>
        {error.requestId && FOR_OPERATORS.test(error.code) && <span class="small soft">{t.requestId(error.requestId)}</span>}
        {onRetry && <span><Button small icon="retry" onClick={onRetry}>{t.again}</Button></span>}
      </div>
    </div>
  );
}

/** The resource's data by `children`, else why there are none. Old data stay visible below an error. */
export function Loaded<T>({ from, children }: { from: Resource<T>; children: (data: T) => ComponentChildren }) {
  return (
    <>
      {from.error && <Problem error={from.error} onRetry={from.reload} />}
      {from.data !== null ? children(from.data) : from.isLoading && <Waiting />}
    </>
  );
}
