// Where one writes. It grows with the text, keeps a draft, and says why something cannot be sent yet.
import type { ChatState } from "@ai-chat-platform/client";
import { useComputed } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { conversation } from "../platform/conversation";
import { count } from "../platform/format";
import { Button } from "../ui/button";
import { focusComposer, isTouch, send, stop } from "./commands";
import { draft } from "./draft";
import { Standing } from "./standing";
import { words } from "./words";

const LIMIT = 32_000; // until the server has said its own

/** Characters as the server counts them: code points. */
const lengthOf = (text: string, limit: number) => (text.length <= limit * 0.8 ? text.length : [...text].length);

export function Composer({ onSend }: { onSend: () => void }) {
  const t = words();
  const { connection, isReplying, isBusy, limit, agent } = useWhatMatters();
  const box = useGrowing(draft.value);
  const length = lengthOf(draft.value, limit);
  const isClosed = connection === "closed" || agent === "blocked" || agent === "deleting";
  const canSend = draft.value.trim() !== "" && length <= limit && !isClosed;

  const submit = (isInterrupt = false) => {
    if (!canSend || !draft.value.trim()) return; // a second Enter before the next picture
    send(draft.value, { isInterrupt });
    draft.value = "";
    onSend();
  };
  const press = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229 || isTouch()) return;
    event.preventDefault();
    submit(event.ctrlKey || event.metaKey);
  };
  useEffect(focusComposer, []);

  return (
    <form class="composer" onSubmit={(event) => (event.preventDefault(), submit())}>
      <Standing />
      {isBusy && canSend && (
        <div class="row apart small soft">
          <span>{t.running}</span>
          <Button small onClick={() => submit(true)}>{t.interrupt}</Button>
        </div>
      )}
      <div class="box">
        <textarea
          ref={box}
          rows={1}
          dir="auto"
          aria-label={t.message}
          aria-describedby="composer-hint"
          aria-invalid={length > limit}
          placeholder={t.placeholder}
          enterkeyhint={isTouch() ? "enter" : "send"}
          value={draft.value}
          onInput={(event) => (draft.value = event.currentTarget.value)}
          onKeyDown={press}
        />
        {isReplying && !draft.value.trim() ? (
          <Button kind="primary" icon="stop" label={t.stop} onClick={() => stop()} />
        ) : (
          <Button kind="primary" type="submit" icon="send" label={isBusy ? t.queue : t.send} disabled={!canSend} />
        )}
      </div>
      <p class="hints small soft" id="composer-hint">
        <span class="keys">{t.enterHint}</span>
        {length > limit * 0.9 && (
          <span class="number" role="status" data-over={length > limit}>{length > limit ? t.tooLong(count(length - limit)) : t.left(count(limit - length))}</span>
        )}
      </p>
    </form>
  );
}

/** What the composer needs of the conversation, so that it is not rendered with each word of a reply. */
function useWhatMatters() {
  const of = <T,>(read: (state: ChatState) => T) => useComputed(() => read(conversation.value)).value;
  return {
    connection: of(({ connection }) => connection),
    isReplying: of(({ reply }) => reply !== null),
    isBusy: of(({ reply, queue }) => reply !== null || queue.length > 0),
    limit: of(({ limits }) => limits?.content_characters ?? LIMIT),
    agent: of(({ agent }) => agent.status),
  };
}

/** As high as its text, up to what the stylesheet allows. */
function useGrowing(text: string) {
  const box = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight}px`;
  }, [text]);
  return box;
}
