"""The one error type of this package, made from whatever the server or the network answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ai_chat_client.wire import ErrorCode, FieldProblem

ChatErrorCode = ErrorCode | Literal["network", "closed", "not_signed_in"]
"""`network`: the server could not be reached. `closed`: the chat was closed. `not_signed_in`: there was no token."""


@dataclass(frozen=True, slots=True)
class Budget:
    """US dollars as decimal strings, and a time."""

    spent: str
    limit: str
    resets_at: str


@dataclass(eq=False)
class ChatError(Exception):
    """What is known about a failure."""

    code: ChatErrorCode
    message: str
    """A sentence for people."""
    retryable: bool = False
    """Whether the same request may succeed later."""
    retry_after: float | None = None
    """Seconds, if the server knows."""
    errors: Sequence[FieldProblem] = ()
    """Of an invalid request: which fields are at fault."""
    budget: Budget | None = None
    """Of a budget that is used up."""
    request_id: str | None = None
    """Quote it to the operator: the server's logs have it too."""
    problem: Mapping[str, Any] | None = field(default=None, repr=False)
    """The whole answer, if it came over HTTP. It may hold tokens, and is not in the repr."""

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


def chat_error(source: Mapping[str, Any]) -> ChatError:
    """From an `error` frame, a failed turn's `error`, or the problem of an HTTP answer."""
    spent, limit, resets_at = source.get("spent"), source.get("limit"), source.get("resets_at")
    return ChatError(
        source["code"],
        source.get("detail") or source["message"],
        retryable=source["retryable"],
        retry_after=source.get("retry_after"),
        errors=tuple(source.get("errors") or ()),
        budget=Budget(spent, limit, resets_at) if spent and limit and resets_at else None,
        request_id=source.get("request_id"),
        problem=source if "detail" in source else None,
    )


def network_error() -> ChatError:
    return ChatError("network", "The server cannot be reached.", retryable=True)
