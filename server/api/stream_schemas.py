"""Models of what the WebSocket and the event streams carry, for the AsyncAPI document. Tests validate recorded sessions
with them.

Events are numbered and reach all of a user's connections; the other frames concern one connection. What clients send is
in `protocol/frames.py`, where it is validated.
"""

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import Field, RootModel, TypeAdapter

from server.api.schemas import Answer, FieldProblem, Message, Money, Step, Turn, Usage
from server.protocol.codes import ErrorCode
from server.protocol.shapes import AgentStatus, CostStatus, ToolStatus

Seq = Annotated[int, Field(ge=1, description="Without gaps within an epoch.")]


class Event(Answer):
    """A numbered event of the session."""

    type: str
    epoch: str = Field(description="The series of numbers that `seq` belongs to.", examples=["0kvqUGjW6Dkf"])
    seq: Seq
    at: datetime = Field(description="When it happened.")


class TurnEvent(Event):
    """An event of one attempt at a turn."""

    turn_id: UUID
    attempt: int = Field(ge=1)


class TurnQueued(TurnEvent):
    """A turn waits for its turn."""

    type: Literal["turn.queued"]
    user_message: Message
    client_message_id: str
    queue_position: int = Field(ge=1)


class TurnStarted(TurnEvent):
    """The turn runs; other devices can show its message."""

    type: Literal["turn.started"]
    user_message: Message
    client_message_id: str
    queue_position: None


class Delta(TurnEvent):
    """A part of a text. Adjacent deltas may arrive joined: `first_seq` is then the number of the first of them."""

    text: str
    first_seq: Seq | None = Field(default=None, description="Only if several deltas are joined.")


class MessageDelta(Delta):
    """Append it to the reply."""

    type: Literal["message.delta"]


class ReasoningDelta(Delta):
    """The model's reasoning, from models that show it."""

    type: Literal["reasoning.delta"]


class ToolCalled(TurnEvent):
    """The agent calls a tool, such as one that edits its memory."""

    type: Literal["tool.called"]
    call_id: str
    name: str = Field(examples=["memory_insert"])
    arguments: str = Field(description="JSON text, unless it was cut.")
    truncated: bool


class ToolReturned(TurnEvent):
    """The tool call has ended."""

    type: Literal["tool.returned"]
    call_id: str
    name: str
    status: ToolStatus


class TurnEnded(Answer):
    """The end of an attempt: exactly one of these per attempt. The text of its `turn` replaces what was streamed.

    It has no number if the attempt had ended before the request that it answers.
    """

    type: str
    turn_id: UUID
    attempt: int = Field(ge=1)
    epoch: str | None = Field(default=None, description="Missing if it has no number.")
    seq: Seq | None = Field(default=None, description="Missing if it has no number.")
    at: datetime | None = Field(default=None, description="Missing if it has no number.")
    turn: Turn


class TurnCompleted(TurnEnded):
    """The turn has its reply."""

    type: Literal["turn.completed"]


class TurnFailed(TurnEnded):
    """The turn failed, or was stored and not sent (`unsent`)."""

    type: Literal["turn.failed"]


class TurnCancelled(TurnEnded):
    """The turn was stopped; the partial reply is kept."""

    type: Literal["turn.cancelled"]


class UsageSettled(TurnEvent):
    """The charge of a turn has changed, usually seconds after its end."""

    type: Literal["usage.settled"]
    cost: Money | None
    cost_status: CostStatus | None
    usage: Usage | None


class BudgetWarning(Event):
    """This part of the budget is spent."""

    type: Literal["budget.warning"]
    spent: Money
    limit: Money
    level: int = Field(description="Per cent.", examples=[80, 100])


class AgentStatusChanged(Event):
    """The agent is being made or repaired, its key is refused or accepted again, or it was lost."""

    type: Literal["agent.status"]
    status: AgentStatus
    reason: str | None


class HistoryDeleted(Event):
    """The user has deleted the history: show no message from before this event. The agent's memory is kept."""

    type: Literal["history.deleted"]
    deleted_at: datetime


class ClientLimits(Answer):
    """The limits that a client can act on."""

    frame_bytes: int = Field(description="Of a frame that the client sends.")
    content_characters: int = Field(description="Of a message.")
    waiting_turns_per_user: int
    messages_per_minute: int
    ping_seconds: float
    turn_seconds: float


class RunningTurn(Answer):
    """The running turn and its reply so far."""

    turn_id: UUID
    text: str
    attempt: int
    user_message: Message
    steps: list[Step] = Field(description="The reasoning and the tool calls so far.")


class ReadyFrame(Answer):
    """The state of the session: the first frame of a connection, and again if its log begins a new epoch."""

    type: Literal["ready"]
    cursor: str = Field(description="`epoch:seq`: the events that follow come after it.")
    resumed: bool = Field(description="Whether all events since the client's cursor follow.")
    user_id: UUID
    limits: ClientLimits
    turn: RunningTurn | None = Field(description="null if nothing runs, or if the connection is resumed.")
    queued: list[Turn] = Field(description="In their order.")


class AckFrame(Answer):
    """The command was carried out. Its `id` is that of the frame that it answers."""

    type: Literal["ack"]
    id: str | None
    turn_id: UUID | None = Field(description="null after `auth`.")
    message_id: UUID | None = Field(description="null after `auth`.")
    queue_position: int | None = Field(description="From 1; null when the turn runs.")
    duplicate: bool


class ErrorFrame(Answer):
    """The frame with this `id` was refused, or the connection is about to be closed."""

    type: Literal["error"]
    id: str | None = Field(default=None, description="Missing if the frame had none, or could not be read.")
    code: ErrorCode
    message: str
    retryable: bool
    retry_after: int | None = Field(default=None, description="Seconds.")
    errors: list[FieldProblem] | None = Field(default=None, description="Missing if no field is at fault.")
    rate_limit: str | None = Field(default=None, description="The limit that is reached, if it is a rate.")
    retry_at: datetime | None = Field(default=None, description="When there is room again.")
    spent: Money | None = Field(default=None, description="Of a budget that is used up.")
    limit: Money | None = None
    resets_at: datetime | None = None


class PongFrame(Answer):
    """The answer to `ping`."""

    type: Literal["pong"]
    id: str | None = None


class ReconnectEvent(Answer):
    """The last event of a stream: open it again after the last cursor, unless `reconnect` is false."""

    type: Literal["reconnect"]
    reason: str
    reconnect: bool


AnyEvent = (
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
"""What all of a user's connections receive."""
SocketFrame = ReadyFrame | AckFrame | ErrorFrame | PongFrame
"""What one WebSocket receives besides."""
StreamFrame = ReadyFrame | ReconnectEvent
"""What one event stream receives besides."""

SOCKET: Final[TypeAdapter[AnyEvent | SocketFrame]] = TypeAdapter(
    Annotated[AnyEvent | SocketFrame, Field(discriminator="type")]
)


class StreamedEvent(RootModel[Annotated[AnyEvent | StreamFrame, Field(discriminator="type")]]):
    """The `data` of one server-sent event; its `type` is the name of the event, too."""


EVENT_STREAM: Final[TypeAdapter[AnyEvent | StreamFrame]] = TypeAdapter(
    Annotated[AnyEvent | StreamFrame, Field(discriminator="type")]
)
