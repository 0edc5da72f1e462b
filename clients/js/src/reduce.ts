// How each frame changes the state. Pure functions: what they know, they know from the state and the frame.
import { chatError } from "./errors.js";
import type { LinkFrame } from "./link.js";
import { type ChatMessage, type ChatState, type ChatTurn, INITIAL, isLocal, localTurn, newMessage, withTurns } from "./state.js";
import type { Message, MessageDelta, ReadyFrame, ReasoningStep, ToolCallStep, ToolReturnStep, Turn, TurnQueued } from "./wire.js";

export function reduce(state: ChatState, frame: LinkFrame): ChatState {
  switch (frame.type) {
    case "ready":
      return ready(state, frame);
    case "turn.queued":
      return { ...accepted(state, frame, "queued"), queue: [...without(state.queue, frame.turn_id), frame.turn_id] };
    case "turn.started":
      return { ...accepted(state, frame, "sent"), queue: without(state.queue, frame.turn_id) };
    case "message.delta":
    case "reasoning.delta":
    case "tool.called":
    case "tool.returned":
      return changeReply(state, frame, (reply) => grown(reply, frame));
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

type Step = ReasoningStep | ToolCallStep | ToolReturnStep;

/** A reply and what an event, or a step that is stored, adds to it. */
export function grown(reply: ChatMessage, event: Step | Pick<MessageDelta, "type" | "text">): ChatMessage {
  switch (event.type) {
    case "message.delta":
      return { ...reply, text: reply.text + event.text };
    case "reasoning.delta":
      return { ...reply, reasoning: reply.reasoning + event.text };
    case "tool.called": {
      const { call_id: id, name, arguments: args, truncated } = event;
      const others = reply.tools.filter((tool) => tool.id !== id);
      return { ...reply, tools: [...others, { id, name, arguments: args, truncated, status: "running" }] };
    }
    case "tool.returned": {
      const { call_id, status } = event;
      return { ...reply, tools: reply.tools.map((tool) => (tool.id === call_id ? { ...tool, status } : tool)) };
    }
  }
}

/** Where the session stands. What is missing between here and there is loaded from the history. */
function ready(state: ChatState, { user_id: userId, limits, resumed, turn, queued }: ReadyFrame): ChatState {
  let next: ChatState = { ...state, userId, limits };
  if (resumed) return next;
  if (turn) {
    const { turn_id, attempt, text, steps } = turn;
    next = accepted(next, { ...turn, client_message_id: null, at: turn.user_message.created_at }, "sent");
    next = changeReply(next, { turn_id, attempt, at: "" }, (reply) => ({ ...steps.reduce(grown, reply), text }));
  }
  for (const waiting of queued) next = accepted(next, { ...waiting, turn_id: waiting.id, at: waiting.created_at }, "queued");
  return { ...next, queue: queued.map(({ id }) => id) };
}

/** The server has stored a message; an event says what becomes of it. */
export function acknowledged(state: ChatState, clientMessageId: string, turnId: string): ChatState {
  if (!localTurn(state, clientMessageId)) return state;
  return placed(state, turnId, clientMessageId, (turn) => {
    const user = { ...turn!.user!, turnId, status: "sent", error: null } as const;
    return { ...turn!, id: turnId, user };
  });
}

/** The server has accepted a retry; an event will say what becomes of it. */
export function reopened(state: ChatState, turnId: string): ChatState {
  const turn = state.turns.find(({ id }) => id === turnId);
  return turn ? changeReply(state, { turn_id: turnId, attempt: turn.attempt + 1, at: turn.reply?.createdAt ?? "" }, (reply) => reply) : state;
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

/** The end of a turn, unless it is still open. Its text is authoritative. */
export function ended(state: ChatState, turn: Turn): ChatState {
  if (/queued|running/.test(turn.status)) return state;
  const known = state.turns.find((other) => other.id === turn.id);
  if (known && known.attempt > turn.attempt) return state; // the answer to a message that was sent again, and retried since
  const error = turn.error && chatError(turn.error);
  const canRetry = turn.status !== "completed" && (error?.retryable ?? true);
  const isUnsent = turn.status === "unsent";
  const next = placed(state, turn.id, turn.client_message_id, (before) => {
    const user = userMessage(turn.user_message, before?.user, isUnsent ? "unsent" : "sent");
    const status = ({ completed: "complete", failed: "failed" } as const)[turn.status as string] ?? "partial";
    const empty = newReply(turn.id, turn.message?.created_at ?? turn.created_at);
    const reply: ChatMessage = {
      ...(turn.message?.steps?.reduce(grown, empty) ?? before?.reply ?? empty),
      text: turn.message?.content ?? "",
      ...{ status, error, canRetry, note: turn.reason, ...chargeOf(turn) },
    };
    const { id, attempt } = turn;
    return isUnsent ? { id, attempt, user: { ...user, error, canRetry }, reply: null } : { id, attempt, user, reply };
  });
  return { ...next, queue: without(state.queue, turn.id) };
}

/** Change the reply of a running turn. An attempt that this state has not seen begin is begun; an ended one stays. */
function changeReply(
  state: ChatState,
  { turn_id, attempt, at }: { turn_id: string; attempt: number; at: string },
  change: (reply: ChatMessage) => ChatMessage,
): ChatState {
  return placed(state, turn_id, null, (turn) => {
    if (turn && (turn.attempt > attempt || (turn.attempt === attempt && turn.reply && turn.reply.status !== "streaming"))) return turn;
    const reply = turn?.attempt === attempt && turn.reply ? turn.reply : newReply(turn_id, at);
    return { id: turn_id, attempt, user: turn?.user ?? null, reply: change(reply) };
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
  const local = localTurn(state, clientMessageId);
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

