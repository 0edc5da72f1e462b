// Pages of the history, and how they join what is already shown.
import { grown, newReply, userMessage } from "./reduce.js";
import { type ChatMessage, type ChatState, type ChatTurn, isOpen, withTurns } from "./state.js";
import type { History, Message } from "./wire.js";

/** The state with a page of the history, whose turns may be known in part. Turns before it stay if they adjoin it;
 * otherwise they can be loaded again.
 *
 * `old`: turns by id that are older than this page unless they are in it. For the newest page these are the turns that
 * were shown when it was asked for; for a page of older messages there are none. */
export function withPage(state: ChatState, page: History, old?: ReadonlyMap<string | null, ChatTurn>): ChatState {
  const turns = turnsOf(page);
  const first = state.turns.findIndex(({ id }) => turns.has(id));
  const before = state.turns.slice(0, Math.max(first, 0));
  const after = state.turns.slice(before.length).filter(({ id }) => !turns.has(id) && (first >= 0 || !old?.has(id)));
  const history = before.length ? state.history : { hasMore: page.has_more, before: page.next_cursor };
  for (const known of state.turns) {
    const stored = turns.get(known.id);
    if (stored) turns.set(known.id, joined(known, stored, old?.get(known.id)));
  }
  return withTurns({ ...state, history: { ...history, isLoading: false } }, [...before, ...turns.values(), ...after]);
}

/** What events have shown of a turn that is open, or since the page was asked for, is at least as new as the page. `before`:
 * the turn as it was shown then. */
function joined(known: ChatTurn, stored: ChatTurn, before: ChatTurn | undefined): ChatTurn {
  const turn = { ...known, user: known.user ?? stored.user };
  const { reply } = stored;
  if (isOpen(known) || !reply || known.reply?.text !== before?.reply?.text) return turn;
  const { text, status, cost, reasoning, tools } = reply;
  const shown = known.reply ?? reply;
  return { ...turn, reply: shown.text === text ? shown : { ...shown, text, status, cost, reasoning, tools } };
}

/** The page's messages, oldest first, by turn. A turn without a reply was not sent, failed or was stopped. */
function turnsOf(page: History): Map<string | null, ChatTurn> {
  const turns = new Map<string | null, ChatTurn>();
  for (const message of [...page.data].reverse()) {
    const id = message.turn_id;
    const user = turns.get(id)?.user ?? null;
    const turn = { id, attempt: 0, user, reply: null };
    if (message.role === "user") turns.set(id, { ...turn, user: { ...userMessage(message, null, message.status === "unsent" ? "unsent" : "sent"), canRetry: true } });
    else turns.set(id, { ...turn, user: user && { ...user, canRetry: false }, reply: replyOf(message) });
  }
  return turns;
}

function replyOf(message: Message): ChatMessage {
  const { content: text, cost, status, steps } = message;
  const reply = newReply(message.turn_id, message.created_at);
  return { ...(steps?.reduce(grown, reply) ?? reply), text, cost, status, canRetry: status === "partial" };
}
