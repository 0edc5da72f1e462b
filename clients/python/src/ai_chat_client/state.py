"""What an app renders. Every change makes a new ChatState; parts that did not change stay the same objects."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ai_chat_client.errors import ChatError
from ai_chat_client.wire import AgentStatus, ClientLimits, Usage

UserStatus = Literal["sending", "queued", "sent", "unsent", "refused"]
"""`sending`: also while offline. `unsent`: stored, but the budget is used up. `refused`: not stored."""
ReplyStatus = Literal["streaming", "complete", "partial", "failed"]
"""`partial`: stopped."""
CostStatus = Literal["estimated", "settled", "written_off"]
"""`estimated` becomes `settled` seconds after the reply."""
ConnectionStatus = Literal["connecting", "online", "offline", "closed"]
"""`offline`: it tries again by itself. `closed`: it does not."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str
    """JSON text, unless `truncated`."""
    truncated: bool
    status: Literal["running", "success", "error", "denied"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    id: str
    """Never changes: a key for lists."""
    turn_id: str | None
    """None until the server has accepted the message."""
    role: Literal["user", "assistant"]
    text: str
    status: UserStatus | ReplyStatus
    created_at: str
    reasoning: str = ""
    """What the model thought, from models that show it."""
    tools: tuple[ToolCall, ...] = ()
    error: ChatError | None = None
    """Why it failed or was refused. While `sending`: why it has not been accepted yet."""
    can_retry: bool = False
    """Whether `retry(message)` makes sense."""
    note: str | None = None
    """Why a complete reply has no text."""
    usage: Usage | None = None
    cost: str | None = None
    """US dollars as a decimal string."""
    cost_status: CostStatus | None = None


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """A message and its reply."""

    id: str | None
    attempt: int
    user: ChatMessage | None
    """None where the history loaded so far begins with the reply."""
    reply: ChatMessage | None


@dataclass(frozen=True, slots=True)
class AgentState:
    status: AgentStatus | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryState:
    is_loading: bool = True
    has_more: bool = False
    before: str | None = None
    """Where the next page begins."""


@dataclass(frozen=True, slots=True)
class Charge:
    """The latest charge of a turn."""

    turn_id: str
    cost: str | None
    cost_status: CostStatus | None
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class BudgetState:
    """Set once 80 per cent of the budget are spent."""

    spent: str
    limit: str
    percent: int


@dataclass(frozen=True, slots=True)
class ChatState:
    connection: ConnectionStatus = "connecting"
    error: ChatError | None = None
    """Why there is no connection."""
    messages: tuple[ChatMessage, ...] = ()
    """Oldest first: the history loaded so far, the running reply, waiting messages, those not sent yet."""
    turns: tuple[ChatTurn, ...] = ()
    """The same messages, by turn."""
    reply: ChatMessage | None = None
    """The reply that is being written. It is one of `messages`."""
    queue: tuple[str, ...] = ()
    """The ids of the turns that wait, in their order."""
    agent: AgentState = AgentState()
    usage: Charge | None = None
    budget: BudgetState | None = None
    history: HistoryState = HistoryState()
    user_id: str | None = None
    limits: ClientLimits | None = None


def is_open(turn: ChatTurn) -> bool:
    """Whether the server has accepted it and it has not ended, as far as this state knows."""
    if turn.id is None:
        return False
    if turn.reply:
        return turn.reply.status == "streaming"
    user = turn.user
    return user is not None and (user.status == "queued" or (user.status == "sent" and not user.can_retry))


def is_local(turn: ChatTurn) -> bool:
    """Whether the server has not accepted it."""
    return turn.id is None


def is_message(turn: ChatTurn, message_id: str | None) -> bool:
    """Whether it is this message of this client, and not accepted yet."""
    return is_local(turn) and turn.user is not None and turn.user.id == message_id


def with_turns(state: ChatState, turns: Iterable[ChatTurn]) -> ChatState:
    """The state with other turns, and what follows from them."""
    turns = tuple(turns)
    messages = tuple(message for turn in turns for message in (turn.user, turn.reply) if message)
    reply = next((message for message in reversed(messages) if message.status == "streaming"), None)
    return replace(state, turns=turns, messages=messages, reply=reply)


def with_local(state: ChatState, user: ChatMessage) -> ChatState:
    """The state with a message that the server has not accepted, at the end."""
    return with_turns(state, [*without_local(state, user.id).turns, ChatTurn(None, 0, user, None)])


def without_local(state: ChatState, message_id: str) -> ChatState:
    return with_turns(state, [turn for turn in state.turns if not is_message(turn, message_id)])


def with_local_changed(state: ChatState, message_id: str, **changes: Any) -> ChatState:
    """Change a message that the server has not accepted, if it is still there."""

    def changed(turn: ChatTurn) -> ChatTurn:
        return replace(turn, user=replace(turn.user, **changes)) if turn.user and is_message(turn, message_id) else turn

    return with_turns(state, map(changed, state.turns))
