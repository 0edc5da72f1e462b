"""How a turn ends whose run completed: by whether it wrote anything readable. Pure."""

from dataclasses import dataclass
from typing import Final, Literal

from server.protocol.codes import ErrorCode
from server.protocol.shapes import TurnError, TurnStatus
from server.protocol.text import is_readable
from server.sessions.turns.reply import Reply

_EMPTY: Final = "The language model gave an empty answer."
_MEMORY_CHANGED: Final = "Your agent changed its memory and said nothing."

EndStatus = Literal[TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED, TurnStatus.UNSENT]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason`: why a completed turn has no text."""

    status: EndStatus
    error: TurnError | None = None
    reason: str | None = None


def of_completed(reply: Reply, *, is_stopped: bool) -> Verdict:
    """The end of a turn whose run completed. `is_stopped`: the user has asked for its end meanwhile."""
    if is_readable(reply.text):
        return Verdict(TurnStatus.COMPLETED)
    steps = reply.ended.step_limit if reply.ended else None
    if reply.changed_memory:
        stopped = f"Your agent changed its memory, and stopped after {steps} steps without an answer."
        return Verdict(TurnStatus.COMPLETED, reason=stopped if steps else _MEMORY_CHANGED)
    if is_stopped:
        return Verdict(TurnStatus.CANCELLED)
    sentence = f"Your agent stopped after {steps} steps without an answer." if steps else _EMPTY
    return Verdict(TurnStatus.FAILED, TurnError(ErrorCode.MODEL_ERROR, sentence, retryable=True))
