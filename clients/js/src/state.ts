// What a UI renders. Every change makes a new ChatState; parts that did not change stay the same objects.
import type { ErrorInfo } from "./errors.js";
import type { AgentStatus, ClientLimits, Usage } from "./wire.js";

export interface ToolCall {
  id: string;
  name: string;
  /** JSON text, unless `truncated`. */
  arguments: string;
  truncated: boolean;
  /** `running` also in a reply that was stopped before the tool had returned. */
  status: "running" | "success" | "error" | "denied";
}

export interface ChatMessage {
  /** Never changes: a key for lists. */
  readonly id: string;
  /** null until the server has accepted the message. */
  readonly turnId: string | null;
  readonly role: "user" | "assistant";
  readonly text: string;
  /** Of the user's messages: `sending` (also while offline), `queued`, `sent`, `unsent` (stored, but the budget is used
   * up), `refused` (not stored). Of replies: `streaming`, `complete`, `partial` (stopped), `failed`. */
  readonly status: "sending" | "queued" | "sent" | "unsent" | "refused" | "streaming" | "complete" | "partial" | "failed";
  /** What the model thought, from models that show it. */
  readonly reasoning: string;
  readonly tools: readonly ToolCall[];
  /** Why it failed or was refused. While `sending`: why it has not been accepted yet. */
  readonly error: ErrorInfo | null;
  /** Whether `retry(message)` makes sense. */
  readonly canRetry: boolean;
  /** Why a complete reply has no text. */
  readonly note: string | null;
  readonly createdAt: string;
  readonly usage: Usage | null;
  /** US dollars as a decimal string. */
  readonly cost: string | null;
  /** `estimated` becomes `settled` seconds after the reply. */
  readonly costStatus: "estimated" | "settled" | "written_off" | null;
}

/** A message and its reply. */
export interface ChatTurn {
  readonly id: string | null;
  readonly attempt: number;
  /** null where the history loaded so far begins with the reply. */
  readonly user: ChatMessage | null;
  readonly reply: ChatMessage | null;
}

export interface ChatState {
  /** `offline`: it tries again by itself, and is `connecting` only for the first attempt. `closed`: it does not, `error` says why. */
  readonly connection: "connecting" | "online" | "offline" | "closed";
  /** Why there is no connection. */
  readonly error: ErrorInfo | null;
  /** Oldest first: the history loaded so far, the running reply, waiting messages, unsent ones. */
  readonly messages: readonly ChatMessage[];
  /** The same messages, by turn. */
  readonly turns: readonly ChatTurn[];
  /** The reply that is being written. It is one of `messages`. */
  readonly reply: ChatMessage | null;
  /** The ids of the turns that wait, in their order. */
  readonly queue: readonly string[];
  readonly agent: { readonly status: AgentStatus | null; readonly reason: string | null };
  /** The latest charge of a turn. */
  readonly usage: { turnId: string; cost: string | null; costStatus: ChatMessage["costStatus"]; usage: Usage | null } | null;
  /** Set once 80 per cent of the budget are spent. */
  readonly budget: { spent: string; limit: string; percent: number } | null;
  /** `before` is where the next page begins, for `loadOlder`. */
  readonly history: { readonly isLoading: boolean; readonly hasMore: boolean; readonly before: string | null };
  readonly userId: string | null;
  readonly limits: ClientLimits | null;
}

export const INITIAL: ChatState = {
  connection: "connecting",
  error: null,
  messages: [],
  turns: [],
  reply: null,
  queue: [],
  agent: { status: null, reason: null },
  usage: null,
  budget: null,
  history: { isLoading: true, hasMore: false, before: null },
  userId: null,
  limits: null,
};

const EMPTY = {
  reasoning: "",
  tools: [],
  error: null,
  canRetry: false,
  note: null,
  usage: null,
  cost: null,
  costStatus: null,
} satisfies Partial<ChatMessage>;

type Given = Pick<ChatMessage, "id" | "turnId" | "role" | "text" | "status" | "createdAt"> & Partial<ChatMessage>;
export const newMessage = (given: Given): ChatMessage => ({ ...EMPTY, ...given });

/** A turn that the server has accepted and that has not ended, as far as this state knows. */
export const isOpen = ({ id, user, reply }: ChatTurn) =>
  id !== null && (reply ? reply.status === "streaming" : user?.status === "queued" || (user?.status === "sent" && !user.canRetry));

/** Whether the server has not accepted it. */
export const isLocal = (turn: ChatTurn) => turn.id === null;

/** The message of this client with this id, as long as the server has not accepted it. */
export const localTurn = (state: ChatState, id: string | null) => state.turns.find((turn) => isLocal(turn) && turn.user?.id === id);

/** The state with other turns, and what follows from them. */
export function withTurns(state: ChatState, turns: readonly ChatTurn[]): ChatState {
  const messages: ChatMessage[] = [];
  let reply: ChatMessage | null = null;
  for (const turn of turns) {
    if (turn.user) messages.push(turn.user);
    if (turn.reply) messages.push(turn.reply);
    if (turn.reply?.status === "streaming") reply = turn.reply;
  }
  return { ...state, turns, messages, reply };
}
