"""The `outcome` our SQL functions answer with, and what each refusal means to the core."""

from typing import Any, Final

from server.ports import FencedError
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

REFUSALS: Final = {
    "account_blocked": (ErrorCode.ACCOUNT_BLOCKED, None),
    "busy": (ErrorCode.BUSY, None),
    "id_conflict": (ErrorCode.ID_CONFLICT, None),
    "no_account": (ErrorCode.UNAUTHORIZED, "This account no longer exists."),
    "not_found": (ErrorCode.NOT_FOUND, None),
    "not_retryable": (ErrorCode.NOT_RETRYABLE, None),
    "overloaded": (ErrorCode.OVERLOADED, None),
    "queue_full": (ErrorCode.QUEUE_FULL, None),
}


def granted(answer: dict[str, Any], user_id: str) -> dict[str, Any]:
    """The answer, unless it refuses. Raises PlatformError, or FencedError for somebody else's fence."""
    outcome = answer["outcome"]
    if outcome == "fenced":
        raise FencedError(user_id)
    if outcome in REFUSALS:
        code, message = REFUSALS[outcome]
        raise PlatformError(code, message)
    return answer
