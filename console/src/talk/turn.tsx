// A message of the user with what became of it, and its reply.
import type { ChatMessage, ChatTurn } from "@ai-chat-platform/client";
import { useComputed } from "@preact/signals";
import { conversation } from "../platform/conversation";
import { moment, money } from "../platform/format";
import { sentence } from "../platform/problem_words";
import { Button } from "../ui/button";
import { copy } from "../ui/clipboard";
import { Notice, Problem } from "../ui/states";
import { answerNow, discard, edit, retry, stop } from "./commands";
import { memo } from "./memo";
import { Reply } from "./reply";
import { When } from "./when";
import { words } from "./words";

interface TurnProps {
  turn: ChatTurn;
  isPast?: boolean;
  /** The message that was searched for. */
  found?: "user" | "assistant" | null;
}

export const TurnView = memo<TurnProps>(({ turn, isPast = false, found = null }) => {
  const { user, reply } = turn;
  return (
    <div class="turn">
      {user && <Sent message={user} isPast={isPast} isFound={found === "user"} />}
      {reply && <Reply message={reply} isPast={isPast} isFound={found === "assistant"} />}
    </div>
  );
});

const Sent = memo<{ message: ChatMessage; isPast: boolean; isFound: boolean }>(({ message, isPast, isFound }) => {
  const t = words();
  return (
    <article class="sent" aria-label={t.you} data-status={message.status} data-found={isFound || undefined} tabIndex={isFound ? -1 : undefined}>
      <p class="bubble plain" dir="auto">{message.text}</p>
      {!isPast && <Fate message={message} />}
      <footer class="turn-foot">
        <Button kind="plain" small icon="copy" label={t.copyMessage} onClick={() => void copy(message.text)} />
        <When at={message.createdAt} />
      </footer>
    </article>
  );
});

/** What became of a message, unless it was simply answered. */
function Fate({ message }: { message: ChatMessage }) {
  switch (message.status) {
    case "sending":
      return <Sending message={message} />;
    case "queued":
      return <Waiting turnId={message.turnId!} />;
    case "unsent":
      return <Unsent message={message} />;
    case "refused":
      return <Refused message={message} />;
    default:
      return message.canRetry ? <Unanswered message={message} /> : null;
  }
}

function Sending({ message }: { message: ChatMessage }) {
  const t = words();
  const isOnline = useComputed(() => conversation.value.connection === "online").value;
  return (
    <div class="fate small soft">
      <span class="row">{isOnline && <span class="spinner" />}{isOnline ? t.sending : t.sendingLater}</span>
      {isOnline && message.error && <span>{sentence(message.error)}</span>}
    </div>
  );
}

function Waiting({ turnId }: { turnId: string }) {
  const t = words();
  const position = useComputed(() => conversation.value.queue.indexOf(turnId) + 1).value;
  return (
    <div class="fate small soft row">
      <span>{t.waiting(position)}</span>
      <Button small title={t.answerNowHint} onClick={() => answerNow(turnId)}>{t.answerNow}</Button>
      <Button kind="plain" small onClick={() => stop(turnId)}>{t.withdraw}</Button>
    </div>
  );
}

function Unsent({ message }: { message: ChatMessage }) {
  const t = words();
  const budget = message.error?.budget;
  return (
    <div class="fate">
      <Notice kind="warn">
        <div class="stack tight">
          <strong>{t.unsent}</strong>
          {budget ? (
            <span>{t.spent(money(budget.spent), money(budget.limit))} {t.resets(moment(budget.resetsAt))}</span>
          ) : (
            message.error && <span>{sentence(message.error)}</span>
          )}
          <span><Button small icon="retry" onClick={() => retry(message)}>{t.again}</Button></span>
        </div>
      </Notice>
    </div>
  );
}

function Refused({ message }: { message: ChatMessage }) {
  const t = words();
  return (
    <div class="fate stack tight">
      {message.error && <Problem error={message.error} />}
      <span class="row">
        <Button small icon="retry" onClick={() => retry(message)}>{t.again}</Button>
        <Button small icon="edit" onClick={() => edit(message)}>{t.edit}</Button>
        <Button small icon="trash" onClick={() => discard(message)}>{t.discard}</Button>
      </span>
    </div>
  );
}

function Unanswered({ message }: { message: ChatMessage }) {
  const t = words();
  return (
    <div class="fate small soft row">
      <span>{t.noReply}</span>
      <Button small icon="retry" onClick={() => retry(message)}>{t.again}</Button>
    </div>
  );
}
