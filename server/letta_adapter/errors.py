"""What Letta's failures mean to the platform. Nothing here lets Letta's own words, addresses or keys reach a user."""

import re
from collections.abc import Mapping
from typing import Any, Final

import httpx
from letta_client import APIConnectionError, APIStatusError

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnError

_BUDGET: Final = re.compile(r"""['"]type['"]: ['"]budget_exceeded['"]""")
_RETRY_AFTER: Final = re.compile(r"(?:retry.after|try again in|retry in)\D{0,4}(\d{1,5})", re.IGNORECASE)

_CODES_BY_STATUS: Final = {
    404: ErrorCode.NOT_FOUND,
    409: ErrorCode.BUSY,
    413: ErrorCode.TOO_LARGE,
}

_BY_ERROR_TYPE: Final[dict[str, tuple[str, bool]]] = {
    "llm_authentication": ("The language model does not accept your account's key. Please contact support.", False),
    "llm_timeout": ("The language model took too long to answer.", True),
    "llm_empty_response": ("The language model gave an empty answer.", True),
}

_BY_STOP_REASON: Final[dict[str, tuple[str, bool]]] = {
    "max_tokens_exceeded": ("The reply grew longer than the language model allows.", True),
    "context_window_overflow_in_system_prompt": ("Your agent's memory no longer fits the language model.", False),
    "insufficient_credits": ("The language model's account has no credit left. Please contact support.", False),
    "requires_approval": ("Your agent waits for an approval that nobody can give here.", False),
}


class RefusedError(PlatformError):
    """Letta understood a request and refused it. `status` is the HTTP status, `detail` Letta's reason, for logs."""

    def __init__(self, error: APIStatusError) -> None:
        self.status = error.status_code
        # A 422 repeats the request in its reason, messages and keys included.
        self.detail = "" if error.status_code == 422 else str(_body(error).get("detail", ""))[:500]
        super().__init__(_CODES_BY_STATUS.get(error.status_code, ErrorCode.INTERNAL_ERROR), retryable=False)


def is_service_fault(error: APIStatusError) -> bool:
    """Whether the service, not the request, is at fault. A wrong password is the operator's mistake, so also that."""
    return error.status_code >= 500 or error.status_code in (401, 403, 408, 429)


def was_never_sent(error: APIConnectionError) -> bool:
    """Whether the connection could not even be opened (see `AiohttpTransport`)."""
    return isinstance(error.__cause__, httpx.ConnectError)


def busy_run(error: APIStatusError) -> str | None:
    """The run that holds the conversation, from the 409 of a send."""
    run_id = _body(error).get("run_id")
    return run_id if isinstance(run_id, str) else None


def model_error(error_type: str | None, detail: str | None) -> TurnError:
    """The error a run reported, from Letta's `error_type` and `detail`.

    LiteLLM's budget errors have no type of their own at Letta (`llm_error`, or `internal_error` from the second step
    on): they are known by the error body that `detail` quotes.
    """
    detail = detail or ""
    if _BUDGET.search(detail):
        return TurnError(ErrorCode.BUDGET_EXCEEDED, "The budget of this period is used up.", retryable=True)
    if error_type == "llm_rate_limit":
        seconds = _RETRY_AFTER.search(detail)
        return TurnError(
            ErrorCode.RATE_LIMITED,
            "The language model is busy right now. Try again shortly.",
            retryable=True,
            retry_after=int(seconds[1]) if seconds else None,
        )
    return _model_error(_BY_ERROR_TYPE.get(error_type or ""))


def stop_error(stop_reason: str | None) -> TurnError:
    """The error of a run that failed and gave no other reason than its stop reason."""
    return _model_error(_BY_STOP_REASON.get(stop_reason or ""))


def _model_error(known: tuple[str, bool] | None) -> TurnError:
    sentence, retryable = known or ("The language model failed to answer.", True)
    return TurnError(ErrorCode.MODEL_ERROR, sentence, retryable)


def _body(error: APIStatusError) -> Mapping[str, Any]:
    return error.body if isinstance(error.body, Mapping) else {}
