"""Maps the `outcome` of our SQL functions to the core's errors."""

from datetime import UTC, datetime
from typing import Any, Final

from server.adapters.supabase.rows import error_of
from server.ports import FencedError
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience.rate_limiter import rate_limited

REFUSALS: Final = {
    "account_blocked": (ErrorCode.ACCOUNT_BLOCKED, None),
    "busy": (ErrorCode.BUSY, None),
    "id_conflict": (ErrorCode.ID_CONFLICT, None),
    "last_admin": (ErrorCode.LAST_ADMIN, None),
    "no_account": (ErrorCode.UNAUTHORIZED, "This account no longer exists."),
    "not_found": (ErrorCode.NOT_FOUND, None),
    "not_retryable": (ErrorCode.NOT_RETRYABLE, None),
    "overloaded": (ErrorCode.OVERLOADED, None),
    "queue_full": (ErrorCode.QUEUE_FULL, None),
    "too_many_keys": (ErrorCode.TOO_MANY_KEYS, None),
}


def granted(answer: dict[str, Any], user_id: str) -> dict[str, Any]:
    """The answer, unless it refuses. Raises PlatformError, or FencedError if the fence is not the caller's."""
    outcome = answer["outcome"]
    if outcome == "fenced":
        raise FencedError(user_id)
    if outcome == "rate_limited":
        raise rate_limited("messages", answer["retry_after"], datetime.now(UTC))
    if outcome in REFUSALS:
        code, message = REFUSALS[outcome]
        raise PlatformError(code, message, retry_after=answer.get("retry_after"))
    if outcome == "budget_exceeded":
        error = error_of(answer["error"])
        raise PlatformError(error.code, error.message, members=error.budget())
    return answer
