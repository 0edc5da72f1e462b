"""Maps Letta's failures to the platform's errors. Letta's texts, addresses and keys never reach a user."""

import math
import re
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import httpx
from letta_client import APIConnectionError, APIStatusError

from server.adapters.letta.durations import parse_wait
from server.adapters.letta.quoted import QuotedAnswer
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnError

T = TypeVar("T")

_RESETS_AT: Final = re.compile(r"resets at: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC")
_LONGEST_WINDOW_SECONDS: Final = 300

_CODES_BY_STATUS: Final = {
    404: ErrorCode.NOT_FOUND,
    409: ErrorCode.BUSY,
    413: ErrorCode.TOO_LARGE,
}

_BY_ERROR_TYPE: Final[dict[str, tuple[str, bool]]] = {
    "llm_authentication": ("The language model does not accept this platform's access. Please contact support.", False),
    "llm_timeout": ("The language model took too long to answer.", True),
    "llm_empty_response": ("The language model gave an empty answer.", True),
}

_BY_STATUS: Final[dict[int, tuple[str, bool]]] = {
    400: ("The language model does not accept this request.", False),
    404: ("The language model that your agent uses cannot be found. Please contact support.", False),
    413: ("This conversation is too long for the language model.", False),
    422: ("The language model does not accept this request.", False),
}
_CONTENT_STATUSES: Final = (400, 413, 422)
"""The model refuses these requests for their content, so it would refuse them again."""

_BY_STOP_REASON: Final[dict[str, tuple[str, bool]]] = {
    "max_tokens_exceeded": ("The reply grew longer than the language model allows.", True),
    "context_window_overflow_in_system_prompt": ("Your agent's memory no longer fits the language model.", False),
    "insufficient_credits": ("The language model's account has no credit left. Please contact support.", False),
    "requires_approval": ("Your agent asked for a tool that needs an approval, which nobody can give here.", True),
}


class RefusedError(PlatformError):
    """Letta understood a request and refused it. `status` is the HTTP status, `detail` Letta's reason, for logs."""

    def __init__(self, error: APIStatusError) -> None:
        self.status = error.status_code
        # The reason of a 422 repeats the request, including messages and keys.
        self.detail = "" if error.status_code == 422 else str(_body(error).get("detail", ""))[:500]
        super().__init__(_CODES_BY_STATUS.get(error.status_code, ErrorCode.INTERNAL_ERROR), retryable=False)


async def none_if_missing(call: Awaitable[T]) -> T | None:
    """The result of the call; None if Letta answers that the object does not exist."""
    try:
        return await call
    except RefusedError as refusal:
        if refusal.status == 404:
            return None
        raise


def is_service_fault(error: APIStatusError) -> bool:
    """Whether the service, not the request, is at fault. This includes the operator's mistakes: a wrong password, or an
    address where another service answers."""
    return error.status_code >= 500 or error.status_code in (401, 403, 408, 429) or _is_foreign(error)


def _is_foreign(error: APIStatusError) -> bool:
    """Whether a 404 does not come from Letta, whose 404s name the missing object. A platform's edge sends such a 404
    during a deployment, and another service for every path it does not have."""
    return error.status_code == 404 and _body(error).get("detail") in (None, "", "Not Found")


def was_never_sent(error: APIConnectionError) -> bool:
    """Whether no connection could be opened, so nothing was sent (see `AiohttpTransport`)."""
    return isinstance(error.__cause__, httpx.ConnectError)


def busy_run(error: APIStatusError) -> str | None:
    """The run that holds the conversation, from the 409 of a send."""
    run_id = _body(error).get("run_id")
    return run_id if isinstance(run_id, str) else None


def model_error(error_type: str | None, detail: str | None, *, now: datetime | None = None) -> TurnError:
    """The error a run reported, from Letta's `error_type` and `detail`.

    From the second step of a turn on, Letta's type is always `internal_error`. So the gateway's refusal is classified
    by the answer that `detail` quotes: first by its `type`, then by its status, and only then by Letta's type. `now` is
    the time from which the seconds until the end of a limit are computed.
    """
    detail = detail or ""
    answer = QuotedAnswer.of(detail)
    if answer.lacks_database:
        return TurnError.by_rule(ErrorCode.LITELLM_UNAVAILABLE)
    if answer.is_over_budget:
        return TurnError.by_rule(ErrorCode.BUDGET_EXCEEDED)
    if error_type == "llm_rate_limit" or answer.is_rate_limit:
        return TurnError(
            ErrorCode.RATE_LIMITED,
            "The language model is busy right now. Try again shortly.",
            retryable=True,
            retry_after=_seconds_to_wait(detail, now or datetime.now(UTC)),
        )
    return _refusal(answer, error_type)


def _refusal(answer: QuotedAnswer, error_type: str | None) -> TurnError:
    """The error of a refusal for another reason than budgets and rate limits."""
    if answer.refuses_content:
        return TurnError.by_rule(ErrorCode.CONTENT_REFUSED)
    if answer.denies_model:
        return _model_error(("Your plan does not include the language model that your agent uses.", False))
    if error_type == "llm_authentication" or answer.status == 401:
        if answer.is_upstreams:
            return _model_error(_BY_ERROR_TYPE["llm_authentication"])
        return TurnError.by_rule(ErrorCode.KEY_REFUSED)
    status = 413 if answer.is_too_long else answer.status or 0
    return _model_error(_BY_STATUS.get(status) or _BY_ERROR_TYPE.get(error_type or ""))


def refuses_request(detail: str | None) -> bool:
    """Whether the answer that `detail` quotes refuses the request for its content, so that a retry is refused too."""
    answer = QuotedAnswer.of(detail or "")
    if answer.lacks_database or answer.is_over_budget or answer.is_rate_limit or answer.denies_model:
        return False
    return answer.refuses_content or answer.status in _CONTENT_STATUSES


def _seconds_to_wait(detail: str, now: datetime) -> int | None:
    """The seconds that a rate limit names, or those until the time it names: at least 1, and at most a limit's window,
    since the provider's clock may differ from ours."""
    if (seconds := parse_wait(detail)) is not None:
        return seconds
    if moment := _RESETS_AT.search(detail):
        left = (datetime.fromisoformat(f"{moment[1]}+00:00") - now).total_seconds()
        return min(max(1, math.ceil(left)), _LONGEST_WINDOW_SECONDS)
    return None


def stop_error(stop_reason: str | None) -> TurnError:
    """The error of a run that failed and reported only its stop reason."""
    return _model_error(_BY_STOP_REASON.get(stop_reason or ""))


def _model_error(known: tuple[str, bool] | None) -> TurnError:
    sentence, retryable = known or ("The language model failed to answer.", True)
    return TurnError(ErrorCode.MODEL_ERROR, sentence, retryable)


def _body(error: APIStatusError) -> Mapping[str, Any]:
    return error.body if isinstance(error.body, Mapping) else {}
