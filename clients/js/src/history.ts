// Pages of the history, and how they join what is already shown.
import { newReply, userMessage } from "./reduce.js";
import { type ChatMessage, type ChatState, type ChatTurn, isOpen, withTurns } from "./state.js";
import type { History, Message } from "./wire.js";

/** The newest page. Turns before it stay if they adjoin it; otherwise they can be loaded again.
 *
 * `old`: the turns that were shown before the page was asked for. Others are newer than the page, or in it. */
export function withNewest(state: ChatState, page: History, old: ReadonlySet<string | null>): ChatState {
  const { turns, inPage, merged } = join(state, page);
  const first = state.turns.findIndex(({ id }) => inPage.has(id));
  const before = state.turns.slice(0, Math.max(first, 0));
  const after = state.turns.slice(before.length).filter(({ id }) => !inPage.has(id) && (first >= 0 || !old.has(id)));
  const history = before.length ? { ...state.history, isLoading: false } : loaded(page);
  return withTurns({ ...state, history }, [...before, ...turns.map(merged), ...after]);
}

/** A page of older messages. Its newest turn may be the rest of the oldest one here. */
export function withOlder(state: ChatState, page: History): ChatState {
  const { turns, inPage, merged } = join(state, page);
  const newer = state.turns.filter(({ id }) => !inPage.has(id));
  return withTurns({ ...state, history: loaded(page) }, [...turns.map(merged), ...newer]);
}

function join(state: ChatState, page: History) {
  const turns = turnsOf(page);
  const known = new Map(state.turns.map((turn) => [turn.id, turn]));
  return { turns, inPage: new Set(turns.map(({ id }) => id)), merged: (turn: ChatTurn) => joined(known.get(turn.id), turn) };
}

const loaded = (page: History) => ({ isLoading: false, hasMore: page.has_more, before: page.next_cursor ?? null });

/** What events have shown of a turn is at least as new as the history, as long as the turn is open. */
function joined(known: ChatTurn | undefined, stored: ChatTurn): ChatTurn {
  if (!known) return stored;
  const turn = { ...known, user: known.user ?? stored.user };
  if (isOpen(known) || !stored.reply) return turn;
  const { text, status, cost } = stored.reply;
  const reply = known.reply ?? stored.reply;
  return { ...turn, reply: reply.text === text ? reply : { ...reply, text, status, cost } };
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
  const { turn_id, created_at, content: text, cost, status } = message;
  return { ...newReply(turn_id, created_at), text, cost, status: status === "partial" ? "partial" : "complete", canRetry: status === "partial" };
}
