"""What the server sends and takes. By scripts/wire.py, from docs/asyncapi.json and docs/openapi.json."""

from typing import Literal, NotRequired, TypedDict


class AckFrame(TypedDict):
    """The command was carried out. Its `id` is that of the frame that it answers."""

    type: Literal["ack"]
    id: str | None
    turn_id: str | None
    """null after `auth`."""
    message_id: str | None
    """null after `auth`."""
    queue_position: int | None
    """From 1; null when the turn runs."""
    duplicate: bool


class TurnSoFar(TypedDict):
    turn_id: str
    text: str


AgentStatus = Literal["provisioning", "active", "failed", "blocked", "deleting"]
"""The state of a user's account and agent."""


class Agent(TypedDict):
    status: AgentStatus
    reason: str | None
    agent_id: str | None
    model: str
    turn: TurnSoFar | None
    """The running turn and its text so far."""
    queued: int
    """Waiting turns."""
    updated_at: str


class AgentStatusChanged(TypedDict):
    """The agent is being made or repaired, its key is refused or accepted again, or it was lost."""

    type: Literal["agent.status"]
    epoch: str
    """The series of numbers that `seq` belongs to."""
    seq: int
    """Without gaps within an epoch."""
    at: str
    """When it happened."""
    status: AgentStatus
    reason: str | None


class AuthFrame(TypedDict):
    """Sign in on a socket, or renew the token before it expires."""

    id: NotRequired[str | None]
    type: Literal["auth"]
    token: str


class BudgetWarning(TypedDict):
    """This part of the budget is spent."""

    type: Literal["budget.warning"]
    epoch: str
    """The series of numbers that `seq` belongs to."""
    seq: int
    """Without gaps within an epoch."""
    at: str
    """When it happened."""
    spent: str
    """US dollars as a decimal string."""
    limit: str
    """US dollars as a decimal string."""
    level: int
    """Per cent."""


class CancelFrame(TypedDict):
    """Stop a turn; without an id the running one, else the first that waits."""

    id: NotRequired[str | None]
    type: Literal["cancel"]
    turn_id: NotRequired[str | None]


class ClientLimits(TypedDict):
    """The limits that a client can act on."""

    frame_bytes: int
    """Of a frame that the client sends."""
    content_characters: int
    """Of a message."""
    waiting_turns_per_user: int
    messages_per_minute: int
    ping_seconds: float
    turn_seconds: float


ErrorCode = Literal[
    "invalid_request",
    "invalid_cursor",
    "captcha_failed",
    "unauthorized",
    "token_expired",
    "budget_exceeded",
    "account_blocked",
    "forbidden",
    "mfa_required",
    "reauthentication_required",
    "otp_expired",
    "registration_closed",
    "anonymous_not_allowed",
    "origin_not_allowed",
    "not_found",
    "method_not_allowed",
    "busy",
    "id_conflict",
    "not_retryable",
    "last_admin",
    "too_many_keys",
    "too_large",
    "content_refused",
    "weak_password",
    "rate_limited",
    "queue_full",
    "internal_error",
    "model_error",
    "letta_unavailable",
    "litellm_unavailable",
    "supabase_unavailable",
    "agent_unavailable",
    "key_refused",
    "events_unavailable",
    "overloaded",
    "draining",
    "turn_timeout",
]
"""Why a request, a frame or a turn was refused or failed."""


class FieldProblem(TypedDict):
    pointer: str
    """A JSON pointer into the body, or into the query as an object."""
    detail: str


class ErrorFrame(TypedDict):
    """The frame with this `id` was refused, or the connection is about to be closed."""

    type: Literal["error"]
    id: NotRequired[str | None]
    """Missing if the frame had none, or could not be read."""
    code: ErrorCode
    message: str
    retryable: bool
    retry_after: NotRequired[int | None]
    """Seconds."""
    errors: NotRequired[list[FieldProblem] | None]
    """Missing if no field is at fault."""
    rate_limit: NotRequired[str | None]
    """The limit that is reached, if it is a rate."""
    retry_at: NotRequired[str | None]
    """When there is room again."""
    spent: NotRequired[str | None]
    """Of a budget that is used up."""
    limit: NotRequired[str | None]
    resets_at: NotRequired[str | None]


class ToolReturnStep(TypedDict):
    """The end of a tool call, as in `tool.returned`. A call without one did not end."""

    type: Literal["tool.returned"]
    call_id: str
    name: str
    status: Literal["success", "error", "denied"]


class ToolCallStep(TypedDict):
    """A tool call of the agent, as in `tool.called`."""

    type: Literal["tool.called"]
    call_id: str
    name: str
    arguments: str
    """JSON text, unless it was cut."""
    truncated: bool


class ReasoningStep(TypedDict):
    """What the model thought between two other steps: `reasoning.delta`, joined."""

    type: Literal["reasoning.delta"]
    text: str
    truncated: NotRequired[Literal[True] | None]
    """Missing unless the text was cut."""


class Message(TypedDict):
    id: str
    turn_id: str
    role: Literal["user", "assistant"]
    content: str
    status: Literal["complete", "partial", "unsent"]
    tokens_used: int | None
    cost: str | None
    created_at: str
    steps: NotRequired[list[ReasoningStep | ToolCallStep | ToolReturnStep] | None]
    """The reasoning and tool calls of a reply, in their order, at most 64 KiB: a step that was cut has `truncated`.
    Only of replies, in chat/turns/{id} and in chat/history with `include=steps`."""
    cursor: NotRequired[str | None]
    """The message's place, to read those before or after it. Only in chat/history."""


class History(TypedDict):
    data: list[Message]
    """Newest first."""
    has_more: bool
    next_cursor: str | None


class HistoryDeleted(TypedDict):
    """The user has deleted the history: show no message from before this event. The agent's memory is kept."""

    type: Literal["history.deleted"]
    epoch: str
    """The series of numbers that `seq` belongs to."""
    seq: int
    """Without gaps within an epoch."""
    at: str
    """When it happened."""
    deleted_at: str


class MessageDelta(TypedDict):
    """Append it to the reply."""

    type: Literal["message.delta"]
    epoch: str
    """The series of numbers that `seq` belongs to."""
    seq: int
    """Without gaps within an epoch."""
    at: str
    """When it happened."""
    turn_id: str
    attempt: int
    text: str
    first_seq: NotRequired[int | None]
    """Only if several deltas are joined."""


class MessageFrame(TypedDict):
    """Send a message. Repeat it with the same `client_message_id` until it is acknowledged: it becomes one turn."""

    id: NotRequired[str | None]
    type: Literal["message"]
    client_message_id: str
    content: str
    on_busy: NotRequired[Literal["enqueue", "reject", "interrupt"]]


class PingFrame(TypedDict):
    """Answered with `pong`."""

    id: NotRequired[str | None]
    type: Literal["ping"]


class PongFrame(TypedDict):
    """The answer to `ping`."""

    type: Literal["pong"]
    id: NotRequired[str | None]


class User(TypedDict):
    id: str
    email: str
    name: str | None
    agent_status: AgentStatus
    created_at: str


class SignedIn(TypedDict):
    access_token: str
    token_type: Literal["bearer"]
    expires_in: int
    """Seconds."""
    expires_at: str
    refresh_token: str
    user: User


class TurnError(TypedDict):
    code: ErrorCode
    message: str
    retryable: bool
    retry_after: int | None
    """Seconds."""
    spent: NotRequired[str | None]
    """Of a budget that is used up."""
    limit: NotRequired[str | None]
    resets_at: NotRequired[str | None]


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    model_calls: int


TurnStatus = Literal["queued", "running", "completed", "failed", "cancelled", "unsent"]
"""The state of a turn. `completed`, `failed`, `cancelled` and `unsent` end an attempt."""


class Turn(TypedDict):
    id: str
    status: TurnStatus
    attempt: int
    client_message_id: str
    user_message: Message
    message: Message | None
    usage: Usage | None
    cost: str | None
    cost_status: Literal["estimated", "settled", "written_off"] | None
    error: TurnError | None
    reason: str | None
    """Why a completed turn has no text."""
    queue_position: int | None
    created_at: str
    started_at: str | None
    finished_at: str | None


class Problem(TypedDict):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: ErrorCode
    retryable: bool
    retry_after: NotRequired[int | None]
    """Seconds; equal to the Retry-After header."""
    rate_limit: NotRequired[str | None]
    """Which limit refused the request (docs/protocol.md)."""
    retry_at: NotRequired[str | None]
    """When there is room again."""
    request_id: str
    errors: list[FieldProblem]
    turn: NotRequired[Turn | None]
    """The failed turn, if there is one."""
    session: NotRequired[SignedIn | None]
    """Of auth/reset, if only the new password was refused."""
    spent: NotRequired[str | None]
    """Of a budget that is used up."""
    limit: NotRequired[str | None]
    resets_at: NotRequired[str | None]


class RunningTurn(TypedDict):
    """The running turn and its reply so far."""

    turn_id: str
    text: str
    attempt: int
    user_message: Message
    steps: list[ReasoningStep | ToolCallStep | ToolReturnStep]
    """The reasoning and the tool calls so far."""


class ReadyFrame(TypedDict):
    """The state of the session: the first frame of a connection, and again if its log begins a new epoch."""

    type: Literal["ready"]
    cursor: str
    """`epoch:seq`: the events that follow come after it."""
    resumed: bool
    """Whether all events since the client's cursor follow."""
    user_id: str
    limits: ClientLimits
    turn: RunningTurn | None
    """null if nothing runs, or if the connection is resumed."""
    queued: list[Turn]
    """In their order."""


class ReasoningDelta(TypedDict):
    """The model's reasoning, from models that show it."""

    type: Literal["reasoning.delta"]
    epoch: str
    """The series of numbers that `seq` belongs to."""
    seq: int
    """Without gaps within an epoch."""
    at: str
    """When it happened."""
    turn_id: str
    attempt: int
    text: str
    first_seq: NotRequired[int | None]
    """Only if several deltas are joined."""


class ReconnectEvent(TypedDict):
    """The last event of a stream: open it again after the last cursor, unless `reconnect` is false."""

    type: Literal["reconnect"]
    reason: str
    reconnect: bool


class RetryFrame(TypedDict):
    """Run a turn again that failed, was cancelled or was not sent."""

    id: NotRequired[str | None]
    type: Literal["retry"]
    turn_id: str


class ToolCalled(TypedDict):
    """The agent calls a tool, such as one that edits its memory."""

    type: Literal["tool.called"]
    epoch: str
    """The series of numbers that `seq` belongs to."""
    seq: int
    """Without gaps within an epoch."""
    at: str
    """When it happened."""
    turn_id: str
    attempt: int
    call_id: str
    name: str
    arguments: str
    """JSON text, unless it was cut."""
    truncated: bool


class ToolReturned(TypedDict):
    """The tool call has ended."""

    type: Literal["tool.returned"]
    epoch: str
    """The series of numbers that `seq` belongs to."""
    seq: int
    """Without gaps within an epoch."""
    at: str
    """When it happened."""
    turn_id: str
    attempt: int
    call_id: str
    name: str
    status: Literal["success", "error", "denied"]


class TurnCancelled(TypedDict):
    """The turn was stopped; the partial reply is kept."""

    type: Literal["turn.cancelled"]
    turn_id: str
    attempt: int
    epoch: NotRequired[str | None]
    """Missing if it has no number."""
    seq: NotRequired[int | None]
    """Missing if it has no number."""
    at: NotRequired[str | None]
    """Missing if it has no number."""
    turn: Turn


class TurnCompleted(TypedDict):
    """The turn has its reply."""

    type: Literal["turn.completed"]
    turn_id: str
    attempt: int
    epoch: NotRequired[str | None]
    """Missing if it has no number."""
    seq: NotRequired[int | None]
    """Missing if it has no number."""
    at: NotRequired[str | None]
    """Missing if it has no number."""
    turn: Turn


class TurnFailed(TypedDict):
    """The turn failed, or was stored and not sent (`unsent`)."""

    type: Literal["turn.failed"]
    turn_id: str
    attempt: int
    epoch: NotRequired[str | None]
    """Missing if it has no number."""
    seq: NotRequired[int | None]
    """Missing if it has no number."""
    at: NotRequired[str | None]
    """Missing if it has no number."""
    turn: Turn


class TurnQueued(TypedDict):
    """A turn waits for its turn."""

    type: Literal["turn.queued"]
    epoch: str
    """The series of numbers that `seq` belongs to."""
    seq: int
    """Without gaps within an epoch."""
    at: str
    """When it happened."""
    turn_id: str
    attempt: int
    user_message: Message
    client_message_id: str
    queue_position: int


class TurnStarted(TypedDict):
    """The turn runs; other devices can show its message."""

    type: Literal["turn.started"]
    epoch: str
    """The series of numbers that `seq` belongs to."""
    seq: int
    """Without gaps within an epoch."""
    at: str
    """When it happened."""
    turn_id: str
    attempt: int
    user_message: Message
    client_message_id: str
    queue_position: None


class UsageSettled(TypedDict):
    """The charge of a turn has changed, usually seconds after its end."""

    type: Literal["usage.settled"]
    epoch: str
    """The series of numbers that `seq` belongs to."""
    seq: int
    """Without gaps within an epoch."""
    at: str
    """When it happened."""
    turn_id: str
    attempt: int
    cost: str | None
    cost_status: Literal["estimated", "settled", "written_off"] | None
    usage: Usage | None


Command = AuthFrame | MessageFrame | CancelFrame | RetryFrame | PingFrame
"""What a client sends."""


SessionEvent = (
    TurnQueued
    | TurnStarted
    | MessageDelta
    | ReasoningDelta
    | ToolCalled
    | ToolReturned
    | TurnCompleted
    | TurnFailed
    | TurnCancelled
    | UsageSettled
    | BudgetWarning
    | AgentStatusChanged
    | HistoryDeleted
)
"""A numbered event of the session."""


Frame = (
    TurnQueued
    | TurnStarted
    | MessageDelta
    | ReasoningDelta
    | ToolCalled
    | ToolReturned
    | TurnCompleted
    | TurnFailed
    | TurnCancelled
    | UsageSettled
    | BudgetWarning
    | AgentStatusChanged
    | HistoryDeleted
    | ReadyFrame
    | AckFrame
    | ErrorFrame
    | PongFrame
)
"""What a connection receives."""
