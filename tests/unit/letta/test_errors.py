"""What a user is told of a failure: the code, and never the vendor's words."""

import httpx
import pytest
from letta_client import APIStatusError

from server.letta_adapter.errors import RefusedError, model_error, stop_error
from server.protocol.codes import ErrorCode

SECRET_DETAIL = (
    "UNAUTHENTICATED: Error code: 401 - {'error': {'message': 'Invalid key sk-abc at http://litellm:4000/v1'}} [BYOK]"
)


@pytest.mark.parametrize(
    "error_type",
    ["llm_error", "llm_rate_limit", "llm_authentication", "llm_timeout", "internal_error", "something_new", None],
)
def test_no_detail_reaches_the_user(error_type: str | None) -> None:
    message = model_error(error_type, SECRET_DETAIL).message
    assert message.endswith(".")
    for secret in ("sk-abc", "http", "litellm", "BYOK", "Letta"):
        assert secret not in message


def test_a_rate_limit_passes_on_when_to_try_again() -> None:
    assert model_error("llm_rate_limit", "Rate limited. Please retry after 17 seconds").retry_after == 17
    assert model_error("llm_rate_limit", "'retry-after': '3'").retry_after == 3
    assert model_error("llm_rate_limit", "Rate limited").retry_after is None


def test_a_budget_error_is_known_by_its_type_alone() -> None:
    detail = "Error code: 400 - {'error': {'message': '…', 'type': 'budget_exceeded', 'code': '400'}}"
    assert model_error("llm_error", detail).code is ErrorCode.BUDGET_EXCEEDED
    assert model_error("internal_error", detail).code is ErrorCode.BUDGET_EXCEEDED
    assert model_error("llm_error", "the user wrote: budget_exceeded").code is ErrorCode.MODEL_ERROR


def test_a_refused_key_is_not_worth_a_retry() -> None:
    error = model_error("llm_authentication", "Key is blocked")
    assert (error.code, error.retryable) == (ErrorCode.MODEL_ERROR, False)


def test_a_failed_run_without_a_report_still_has_an_error() -> None:
    assert stop_error("llm_api_error").code is ErrorCode.MODEL_ERROR
    assert not stop_error("context_window_overflow_in_system_prompt").retryable
    assert stop_error(None).retryable


@pytest.mark.parametrize(("status", "detail"), [(409, "The conversation is busy."), (422, "")])
def test_a_reason_that_repeats_the_request_is_dropped(status: int, detail: str) -> None:
    request = httpx.Request("POST", "http://letta/v1/providers/")
    reason = detail or "[{'loc': ('body', 'name'), 'input': {'api_key': 'sk-abc'}}]"
    error = APIStatusError("refused", response=httpx.Response(status, request=request), body={"detail": reason})
    assert RefusedError(error).detail == detail
