"""The types of the protocol (Message, Turn, User …) in the core, and their JSON on the wire."""

from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from enum import StrEnum
from typing import Any, Final, Literal

from server.protocol.codes import ERRORS, ErrorCode

Json = dict[str, Any]

MONEY: Final = Context(prec=400, rounding=ROUND_HALF_UP)
"""Enough precision for every digit of any amount and sum: the default context has 28 digits."""
_SHOWN: Final = Decimal("1e-12")

OnBusy = Literal["enqueue", "reject", "interrupt"]
CostStatus = Literal["estimated", "settled", "written_off"]
MessageStatus = Literal["complete", "partial", "unsent"]
ToolStatus = Literal["success", "error", "denied"]


class TurnStatus(StrEnum):
    """The state of a turn. `completed`, `failed`, `cancelled` and `unsent` end an attempt."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNSENT = "unsent"

    @property
    def ended(self) -> bool:
        return self not in (TurnStatus.QUEUED, TurnStatus.RUNNING)


class AgentStatus(StrEnum):
    """The state of a user's account and agent."""

    PROVISIONING = "provisioning"
    ACTIVE = "active"
    FAILED = "failed"
    BLOCKED = "blocked"
    DELETING = "deleting"

    @property
    def closed(self) -> bool:
        """Whether the account may not be used: it was blocked, or is being deleted."""
        return self in (AgentStatus.BLOCKED, AgentStatus.DELETING)


def wire_time(value: datetime | None) -> str | None:
    """RFC 3339 in UTC with a Z."""
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def wire_money(value: Decimal | None) -> str | None:
    """US dollars for responses: rounded to twelve decimals, without trailing zeros or scientific notation.

    LiteLLM calculates in floats, so its amounts have rounding errors. An amount that would round to 0 is not rounded.
    """
    if value is None:
        return None
    rounded = value.quantize(_SHOWN, context=MONEY) or value
    text = format(rounded, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) if rounded else "0"


def exact_money(value: Decimal | None) -> str | None:
    """US dollars with every digit, as plain decimal text: for storage, and for columns that are rounded already."""
    return None if value is None else format(value, "f")


def total_of(amounts: Iterable[Decimal]) -> Decimal:
    """The sum, with every digit."""
    total = Decimal(0)
    for amount in amounts:
        total = MONEY.add(total, amount)
    return total


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. `cost` in US dollars, with the six decimals of its column.

    `steps`: a reply's reasoning and tool calls, as on the wire; None if they were not read.
    """

    id: str
    turn_id: str
    role: Literal["user", "assistant"]
    content: str
    status: MessageStatus
    tokens_used: int | None
    cost: Decimal | None
    created_at: datetime
    position: int
    steps: tuple[Json, ...] | None = None

    def wire(self) -> Json:
        message = {
            "id": self.id,
            "turn_id": self.turn_id,
            "role": self.role,
            "content": self.content,
            "status": self.status,
            "tokens_used": self.tokens_used,
            "cost": exact_money(self.cost),
            "created_at": wire_time(self.created_at),
        }
        return message if self.steps is None else message | {"steps": self.steps}


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and model calls of one attempt or one turn."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    model_calls: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def wire(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TurnError:
    """Why a turn ended without its whole reply. `retry_after` in seconds.

    Only if the budget is used up: `spent` and `limit` in US dollars, and the time at which it `resets_at`.
    """

    code: ErrorCode
    message: str
    retryable: bool
    retry_after: int | None = None
    spent: Decimal | None = None
    limit: Decimal | None = None
    resets_at: datetime | None = None

    @classmethod
    def by_rule(cls, code: ErrorCode) -> "TurnError":
        """The error with its code's default sentence."""
        return cls(code, ERRORS[code].sentence, ERRORS[code].retryable)

    def wire(self) -> Json:
        error = {
            "code": self.code,
            "message": self.message,
            "retryable": self.retryable,
            "retry_after": self.retry_after,
        }
        return error | self.budget()

    def budget(self) -> Json:
        """The fields of a used-up budget; empty for other errors."""
        if self.code is not ErrorCode.BUDGET_EXCEEDED:
            return {}
        return {
            "spent": wire_money(self.spent),
            "limit": wire_money(self.limit),
            "resets_at": wire_time(self.resets_at),
        }


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message with its reply. `reason` says why a completed turn has no text.

    Fields after `finished_at`, except `reason`, are not on the wire.
    """

    id: str
    status: TurnStatus
    attempt: int
    client_message_id: str
    user_message: Message
    message: Message | None
    usage: Usage | None
    cost: Decimal | None
    cost_status: CostStatus | None
    error: TurnError | None
    queue_position: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    user_id: str
    number: int
    run_id: str | None = None
    cancel_requested_at: datetime | None = None
    reason: str | None = None

    @property
    def terminal_event(self) -> str:
        """The type of the turn's last event: `turn.failed` also for an unsent turn, which can be retried."""
        return "turn.failed" if self.status is TurnStatus.UNSENT else f"turn.{self.status}"

    def wire(self) -> Json:
        return {
            "id": self.id,
            "status": self.status,
            "attempt": self.attempt,
            "client_message_id": self.client_message_id,
            "user_message": self.user_message.wire(),
            "message": self.message and self.message.wire(),
            "usage": self.usage and self.usage.wire(),
            "cost": wire_money(self.cost),
            "cost_status": self.cost_status,
            "error": self.error and self.error.wire(),
            "reason": self.reason,
            "queue_position": self.queue_position,
            "created_at": wire_time(self.created_at),
            "started_at": wire_time(self.started_at),
            "finished_at": wire_time(self.finished_at),
        }


@dataclass(frozen=True, slots=True)
class User:
    """A user's own profile on the wire."""

    id: str
    email: str
    name: str | None
    agent_status: AgentStatus
    created_at: datetime

    def wire(self) -> Json:
        return {
            "id": self.id,
            "email": self.email,
            "name": self.name,
            "agent_status": self.agent_status,
            "created_at": wire_time(self.created_at),
        }
