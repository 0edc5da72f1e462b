// How each frame changes the state. Pure functions: what they know, they know from the state and the frame.
import { chatError } from "./errors.js";
import type { LinkFrame } from "./link.js";
import { type ChatMessage, type ChatState, type ChatTurn, INITIAL, isLocal, newMessage, withTurns } from "./state.js";
import type { Frame, Message, ReadyFrame, Turn, TurnQueued } from "./wire.js";

export function reduce(state: ChatState, frame: LinkFrame): ChatState {
  switch (frame.type) {
    case "ready":
      return ready(state, frame);
    case "turn.queued":
      return { ...accepted(state, frame, "queued"), queue: [...without(state.queue, frame.turn_id), frame.turn_id] };
    case "turn.started":
      return { ...accepted(state, frame, "sent"), queue: without(state.queue, frame.turn_id) };
    case "message.delta":
      return changeReply(state, frame, (reply) => ({ text: reply.text + frame.text }));
    case "reasoning.delta":
      return changeReply(state, frame, (reply) => ({ reasoning: reply.reasoning + frame.text }));
    case "tool.called": {
      const { call_id: id, name, arguments: args, truncated } = frame;
      const call = { id, name, arguments: args, truncated, status: "running" } as const;
      return changeReply(state, frame, (reply) => ({ tools: [...reply.tools.filter((tool) => tool.id !== id), call] }));
    }
    case "tool.returned":
      return changeReply(state, frame, (reply) => ({
        tools: reply.tools.map((tool) => (tool.id === frame.call_id ? { ...tool, status: frame.status } : tool)),
      }));
    case "turn.completed":
    case "turn.failed":
    case "turn.cancelled":
      return ended(state, frame.turn);
    case "usage.settled": {
      const { turn_id: turnId } = frame;
      const charge = chargeOf(frame);
      const turns = state.turns.map((turn) => (turn.id === turnId && turn.reply ? { ...turn, reply: { ...turn.reply, ...charge } } : turn));
      return { ...withTurns(state, turns), usage: { turnId, ...charge } };
    }
    case "budget.warning":
      return { ...state, budget: { spent: frame.spent, limit: frame.limit, percent: frame.level } };
    case "agent.status":
      return { ...state, agent: { status: frame.status, reason: frame.reason } };
    case "history.deleted":
      return withTurns({ ...state, history: { ...INITIAL.history, isLoading: false } }, state.turns.filter(isLocal));
    case "tab.state":
      return frame.adopt(state);
    default:
      return state; // acknowledgements and errors concern the outbox; the rest this version does not know
  }
}

/** Where the session stands. What is missing between here and there is loaded from the history. */
function ready(state: ChatState, { user_id: userId, limits, resumed, turn, queued }: ReadyFrame): ChatState {
  let next: ChatState = { ...state, userId, limits };
  if (resumed) return next;
  if (turn) {
    const { turn_id, attempt, text } = turn;
    const known = state.turns.find(({ id }) => id === turn_id);
    const shown = known?.attempt === attempt && known.reply?.status === "streaming" ? known.reply : null;
    next = accepted(next, { ...turn, client_message_id: null, at: turn.user_message.created_at }, "sent");
    next = changeReply(next, { turn_id, attempt, at: "" }, () => ({ ...shown, text }));
  }
  for (const waiting of queued) next = accepted(next, { ...waiting, turn_id: waiting.id, at: waiting.created_at }, "queued");
  return { ...next, queue: queued.map(({ id }) => id) };
}

/** The server has stored a message; an event says what becomes of it. */
export function acknowledged(state: ChatState, clientMessageId: string, turnId: string): ChatState {
  if (!state.turns.some((turn) => isLocal(turn) && turn.user?.id === clientMessageId)) return state;
  return placed(state, turnId, clientMessageId, (turn) => {
    const user = { ...turn!.user!, turnId, status: "sent", error: null } as const;
    return { ...turn!, id: turnId, user };
  });
}

type Accepted = Pick<TurnQueued, "turn_id" | "attempt" | "user_message" | "at"> & { client_message_id: string | null };

function accepted(state: ChatState, frame: Accepted, status: "queued" | "sent"): ChatState {
  const { turn_id, attempt, user_message, client_message_id, at } = frame;
  return placed(state, turn_id, client_message_id, (turn) => ({
    id: turn_id,
    attempt,
    user: userMessage(user_message, turn?.user, status),
    reply: status === "sent" ? newReply(turn_id, at) : null,
  }));
}

/** The end of a turn. Its text is authoritative. */
function ended(state: ChatState, turn: Turn): ChatState {
  const known = state.turns.find((other) => other.id === turn.id);
  if (known && known.attempt > turn.attempt) return state; // the answer to a message that was sent again, and retried since
  const error = turn.error && chatError(turn.error);
  const canRetry = turn.status !== "completed" && (error?.retryable ?? true);
  const isUnsent = turn.status === "unsent";
  const next = placed(state, turn.id, turn.client_message_id, (before) => {
    const user = userMessage(turn.user_message, before?.user, isUnsent ? "unsent" : "sent");
    const status = ({ completed: "complete", failed: "failed" } as const)[turn.status as string] ?? "partial";
    const reply: ChatMessage = {
      ...(before?.reply ?? newReply(turn.id, turn.message?.created_at ?? turn.created_at)),
      text: turn.message?.content ?? "",
      ...{ status, error, canRetry, note: turn.reason, ...chargeOf(turn) },
    };
    const { id, attempt } = turn;
    return isUnsent ? { id, attempt, user: { ...user, error, canRetry }, reply: null } : { id, attempt, user, reply };
  });
  return { ...next, queue: without(state.queue, turn.id) };
}

const TERMINAL = { completed: "turn.completed", failed: "turn.failed", unsent: "turn.failed", cancelled: "turn.cancelled" } as const;

/** The terminal event of an ended turn, without a number; null while it is queued or running. */
export function endOfTurn(turn: Turn): Frame | null {
  const type = TERMINAL[turn.status as keyof typeof TERMINAL];
  return type ? ({ type, turn, turn_id: turn.id, attempt: turn.attempt } as Frame) : null;
}

/** Change the reply of a running turn. An attempt that this state has not seen begin is begun; an ended one stays. */
function changeReply(
  state: ChatState,
  { turn_id, attempt, at }: { turn_id: string; attempt: number; at: string },
  change: (reply: ChatMessage) => Partial<ChatMessage>,
): ChatState {
  return placed(state, turn_id, null, (turn) => {
    if (turn && (turn.attempt > attempt || (turn.attempt === attempt && turn.reply && turn.reply.status !== "streaming"))) return turn;
    const reply = turn?.attempt === attempt && turn.reply ? turn.reply : newReply(turn_id, at);
    return { id: turn_id, attempt, user: turn?.user ?? null, reply: { ...reply, ...change(reply) } };
  });
}

/** Change the turn with this id, or add one. A message of this client that was not accepted before becomes that turn: it
 * moves before those that still are not, or to its copy from the history. */
function placed(
  state: ChatState,
  turnId: string,
  clientMessageId: string | null,
  change: (turn: ChatTurn | undefined) => ChatTurn,
): ChatState {
  const local = state.turns.find((turn) => isLocal(turn) && turn.user?.id === clientMessageId);
  const turns = state.turns.filter((turn) => turn !== local);
  const index = turns.findIndex(({ id }) => id === turnId);
  const known = turns[index];
  const changed = change(local ? { ...local, reply: known?.reply ?? null } : known);
  if (known) turns[index] = changed;
  else turns.splice(turns.findLastIndex((turn) => !isLocal(turn)) + 1, 0, changed);
  return withTurns(state, turns);
}

const chargeOf = ({ usage, cost, cost_status: costStatus }: Pick<Turn, "usage" | "cost" | "cost_status">) => ({ usage, cost, costStatus });

/** The user's message as the server has it. A message of this client keeps its id. */
export function userMessage(message: Message, known: ChatMessage | null | undefined, status: ChatMessage["status"]): ChatMessage {
  const { turn_id: turnId, content: text, created_at: createdAt } = message;
  return newMessage({ id: known?.id ?? `${turnId}:user`, turnId, role: "user", text, status, createdAt });
}

export const newReply = (turnId: string, createdAt: string): ChatMessage =>
  newMessage({ id: `${turnId}:assistant`, turnId, role: "assistant", text: "", status: "streaming", createdAt });

const without = (queue: readonly string[], turnId: string) => queue.filter((id) => id !== turnId);

