// Pages of the history, and how they join what is already shown.
import { grown, newReply, userMessage } from "./reduce.js";
import { type ChatMessage, type ChatState, type ChatTurn, isOpen, withTurns } from "./state.js";
import type { History, Message } from "./wire.js";

/** The state with a page of the history, whose turns may be known in part. Turns before it stay if they adjoin it;
 * otherwise they can be loaded again.
 *
 * `old`: turns that are older than this page unless they are in it. For the newest page these are the turns that were
 * shown before it was asked for; for a page of older messages there are none. */
export function withPage(state: ChatState, page: History, old: ReadonlySet<string | null> = new Set()): ChatState {
  const turns = turnsOf(page);
  const known = new Map(state.turns.map((turn) => [turn.id, turn]));
  const inPage = new Set(turns.map(({ id }) => id));
  const first = state.turns.findIndex(({ id }) => inPage.has(id));
  const before = state.turns.slice(0, Math.max(first, 0));
  const after = state.turns.slice(before.length).filter(({ id }) => !inPage.has(id) && (first >= 0 || !old.has(id)));
  const next = before.length ? state.history : { hasMore: page.has_more, before: page.next_cursor };
  const merged = turns.map((turn) => joined(known.get(turn.id), turn));
  return withTurns({ ...state, history: { ...next, isLoading: false } }, [...before, ...merged, ...after]);
}

/** What events have shown of a turn is at least as new as the history, as long as the turn is open. */
function joined(known: ChatTurn | undefined, stored: ChatTurn): ChatTurn {
  if (!known) return stored;
  const turn = { ...known, user: known.user ?? stored.user };
  if (isOpen(known) || !stored.reply) return turn;
  const { text, status, cost, reasoning, tools } = stored.reply;
  const reply = known.reply ?? stored.reply;
  return { ...turn, reply: reply.text === text ? reply : { ...reply, text, status, cost, reasoning, tools } };
}

/** The page's messages, oldest first, by turn. A turn without a reply was not sent, failed or was stopped. */
function turnsOf(page: History): ChatTurn[] {
  const turns: { id: string; attempt: number; user: ChatMessage | null; reply: ChatMessage | null }[] = [];
  for (const message of [...page.data].reverse()) {
    let turn = turns.at(-1);
    if (turn?.id !== message.turn_id) {
      turn = { id: message.turn_id, attempt: 0, user: null, reply: null };
      turns.push(turn);
    }
    if (message.role === "user") turn.user = userMessage(message, null, message.status === "unsent" ? "unsent" : "sent");
    else turn.reply = replyOf(message);
  }
  return turns.map((turn) => (turn.user && !turn.reply ? { ...turn, user: { ...turn.user, canRetry: true } } : turn));
}

function replyOf(message: Message): ChatMessage {
  const { turn_id, created_at, content: text, cost, status, steps } = message;
  const reply = newReply(turn_id, created_at);
  return { ...(steps?.reduce(grown, reply) ?? reply), text, cost, status: status === "partial" ? "partial" : "complete", canRetry: status === "partial" };
}
