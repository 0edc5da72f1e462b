// How long messages that were sent here took to their first word, as their sender sees it. A message that waited for others
// counts from when its turn started. Nothing is known of other devices' messages, nor after a reload.
import type { Chat } from "@ai-chat-platform/client";
import { signal } from "@preact/signals";

/** Seconds by the turn's id. */
export const firstWords = signal<ReadonlyMap<string, number>>(new Map());

const sentAt = new Map<string, number>(); // by client_message_id
const startedAt = new Map<string, number>(); // by turn

export const noteSending = (id: string): void => void sentAt.set(id, performance.now());

/** Follow the turns of a chat. Returns a function that ends it. */
export function followTimes(chat: Chat): () => void {
  const wait = ({ client_message_id: id }: { client_message_id: string }) => {
    if (sentAt.has(id)) sentAt.set(id, Infinity);
  };
  const start = ({ client_message_id: id, turn_id }: { client_message_id: string; turn_id: string }) => {
    const sent = sentAt.get(id);
    if (sent === undefined) return;
    startedAt.set(turn_id, sent === Infinity ? performance.now() : sent);
    sentAt.delete(id);
  };
  const end = ({ turn_id }: { turn_id: string }) => {
    const started = startedAt.get(turn_id);
    startedAt.delete(turn_id);
    if (started !== undefined) firstWords.value = new Map(firstWords.peek()).set(turn_id, (performance.now() - started) / 1000);
  };
  const ends = [chat.on("turn.queued", wait), chat.on("turn.started", start), chat.on("message.delta", end)];
  return () => {
    for (const stop of ends) stop();
    sentAt.clear(); // a word that is seen later, when the chat is opened again, may not be the first
    startedAt.clear();
  };
}
