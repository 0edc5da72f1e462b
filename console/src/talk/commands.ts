// What one can do with the conversation. Whether it worked is shown by the messages themselves. Buttons that go away with
// their use leave the focus to the composer.
import type { ChatMessage } from "@ai-chat-platform/client";
import { chat, conversation } from "../platform/conversation";
import { draft } from "./draft";
import { noteSending } from "./timing";

const touch = matchMedia("(hover: none) and (pointer: coarse)");

/** On a touch screen Enter begins a line, since there is no Shift+Enter, and the focus would open the keyboard. */
export const isTouch = () => touch.matches;

export function focusComposer(): void {
  if (!isTouch()) document.querySelector<HTMLTextAreaElement>(".composer textarea")?.focus({ preventScroll: true });
}

export function send(text: string, { isInterrupt = false } = {}): void {
  const id = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`; // pages without TLS have no randomUUID
  noteSending(id);
  chat.value?.send(text, { id, onBusy: isInterrupt ? "interrupt" : "enqueue" }).catch(() => {});
  focusComposer();
}

/** Stop the given turn, else the one that runs. */
export function stop(turnId?: string): void {
  chat.value?.cancel(turnId).catch(() => {});
  focusComposer();
}

/** Stop what runs and what waits before a turn, so that it is the next. */
export function answerNow(turnId: string): void {
  const { queue, reply } = conversation.peek();
  const before = [...queue.slice(0, Math.max(queue.indexOf(turnId), 0)), ...(reply?.turnId ? [reply.turnId] : [])];
  before.forEach(stop);
}

export function retry(message: ChatMessage): void {
  chat.value?.retry(message).catch(() => {});
  focusComposer();
}

export function discard(message: ChatMessage): void {
  chat.value?.discard(message);
  focusComposer();
}

/** Take a refused message back into the composer, before what is written there. */
export function edit(message: ChatMessage): void {
  draft.value = [message.text, draft.value].filter(Boolean).join("\n\n");
  discard(message);
}
