"""The errors that users see for failures: a code, and never the vendor's text."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from letta_client import APIStatusError

from server.adapters.letta.errors import RefusedError, model_error, refuses_request, stop_error
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


def quoted(status: int, message: str, kind: str) -> str:
    """Letta's `detail` around an answer of LiteLLM's."""
    answer = {"error": {"message": message, "type": kind, "param": None, "code": str(status)}}
    return f"INVALID_ARGUMENT: Invalid request content for OpenAI: Error code: {status} - {answer} [BYOK]"


LIMITED = (
    "Rate limit exceeded for user: ann. Limit type: tokens. Current limit: 1, Remaining: 0. "
    "Limit resets at: 2026-11-26 07:32:27 UTC"
)
NOW = datetime(2026, 11, 26, 7, 31, 45, 500_000, tzinfo=UTC)


def test_a_rate_limit_has_the_seconds_to_wait() -> None:
    assert model_error("llm_rate_limit", "Rate limited. Please retry after 17 seconds").retry_after == 17
    assert model_error("llm_rate_limit", "'retry-after': '3'").retry_after == 3
    assert model_error("llm_rate_limit", quoted(429, "Please try again in 640ms.", "None")).retry_after == 1
    assert model_error("llm_rate_limit", quoted(429, "Please try again in 6m0s.", "None")).retry_after == 360
    assert model_error("llm_rate_limit", "Retry after 2026-11-26 07:32:27 UTC").retry_after is None
    assert model_error("llm_rate_limit", "Rate limited").retry_after is None


def test_the_end_of_a_limit_is_converted_to_seconds() -> None:
    detail = quoted(429, LIMITED, "throttling_error")
    assert model_error("llm_rate_limit", detail, now=NOW).retry_after == 42
    assert model_error("llm_rate_limit", detail, now=NOW + timedelta(hours=3)).retry_after == 1
    assert model_error("llm_rate_limit", detail, now=NOW - timedelta(hours=3)).retry_after == 300


@pytest.mark.parametrize("error_type", ["llm_rate_limit", "internal_error"])
@pytest.mark.parametrize("kind", ["throttling_error", "None", "rate_limit_error"])
def test_a_rate_limit_is_recognized_at_every_step(error_type: str, kind: str) -> None:
    error = model_error(error_type, quoted(429, LIMITED, kind), now=NOW)
    assert (error.code, error.retryable, error.retry_after) == (ErrorCode.RATE_LIMITED, True, 42)


@pytest.mark.parametrize("error_type", ["llm_error", "internal_error", "llm_rate_limit"])
@pytest.mark.parametrize("status", [400, 422, 429])
def test_a_budget_error_is_recognized_by_its_type_with_any_status(error_type: str, status: int) -> None:
    assert model_error(error_type, quoted(status, "…", "budget_exceeded")).code is ErrorCode.BUDGET_EXCEEDED


@pytest.mark.parametrize(
    "words",
    [
        "Budget has been exceeded! Current cost: 0.02, Max budget: 0.01",
        "ExceededBudget: User=ann over budget. Spend=0.02235, Budget=1e-05",
        "Authentication Error, ExceededTokenBudget: Current spend for token: 1.0; Max Budget for Token: 0.5",
        "Authentication Error, ExceededBudget: User ann has exceeded their budget.",
        "User=ann over budget. Spend=2, Budget=1",
    ],
)
@pytest.mark.parametrize(
    ("status", "kind", "error_type"),
    [
        (400, "budget_error", "llm_error"),
        (401, "auth_error", "llm_authentication"),
        (429, "None", "llm_rate_limit"),
        (400, "auth_error", "internal_error"),
    ],
)
def test_a_budget_error_without_a_type_is_recognized_by_its_text(
    words: str, status: int, kind: str, error_type: str
) -> None:
    assert model_error(error_type, quoted(status, words, kind)).code is ErrorCode.BUDGET_EXCEEDED


@pytest.mark.parametrize(
    "detail",
    [
        "the user wrote: budget_exceeded",
        "the user wrote: Budget has been exceeded",
        quoted(400, "I cannot say 'Budget has been exceeded'", "invalid_request_error"),
        quoted(400, "about {'type': 'budget_exceeded'}, which you quote", "invalid_request_error"),
    ],
)
def test_a_text_that_mentions_budgets_is_not_a_budget_error(detail: str) -> None:
    assert model_error("llm_error", detail).code is ErrorCode.MODEL_ERROR


def test_a_rate_limit_is_not_a_budget_error() -> None:
    limited = quoted(429, "Budget has been exceeded for this minute. Limit resets soon", "throttling_error")
    assert model_error("llm_rate_limit", limited).code is ErrorCode.RATE_LIMITED
    provider = quoted(429, "No deployments available - crossed budget of the provider", "None")
    assert model_error("llm_rate_limit", provider).code is ErrorCode.RATE_LIMITED


@pytest.mark.parametrize("error_type", ["llm_authentication", "internal_error"])
@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Authentication Error, Key is blocked. Update via `/key/unblock` if you're an admin.", "auth_error"),
        ("Authentication Error, Invalid proxy server token passed. Received API Key = sk-...", "token_not_found_in_db"),
        ("Authentication Error - Expired Key. Key Expiry time 2026-11-26", "expired_key"),
    ],
)
def test_a_refused_key_is_key_refused_and_not_retryable(error_type: str, message: str, kind: str) -> None:
    error = model_error(error_type, quoted(401, message, kind))
    assert (error.code, error.retryable) == (ErrorCode.KEY_REFUSED, False)
    assert "sk-" not in error.message


def test_a_provider_that_refuses_the_gateways_key_is_a_model_error() -> None:
    upstream = quoted(401, "litellm.AuthenticationError: OpenAIException - Incorrect API key provided", "None")
    for error_type in ("llm_authentication", "internal_error"):
        error = model_error(error_type, upstream)
        assert (error.code, error.retryable) == (ErrorCode.MODEL_ERROR, False)


@pytest.mark.parametrize("kind", ["key_model_access_denied", "user_model_access_denied"])
@pytest.mark.parametrize("error_type", ["llm_error", "internal_error"])
def test_a_model_outside_the_plan_has_its_own_message(error_type: str, kind: str) -> None:
    error = model_error(error_type, quoted(403, "The requested model 'gpt-4' is not available", kind))
    assert (error.code, error.retryable) == (ErrorCode.MODEL_ERROR, False)
    assert error.message == "Your plan does not include the language model that your agent uses."


AZURE = (
    "Bad request to OpenAI-compatible endpoint: Error code: 400 - {'error': {'message': 'The response was filtered', "
    "'type': None, 'param': 'prompt', 'code': 'content_filter', 'innererror': {'code': 'ResponsibleAIPolicyViolation', "
    "'content_filter_result': {'hate': {'filtered': True}}}}} [BYOK]"
)


@pytest.mark.parametrize("error_type", ["llm_error", "internal_error"])
@pytest.mark.parametrize(
    "detail",
    [
        quoted(400, "litellm.BadRequestError: litellm.ContentPolicyViolationError: OpenAIException - no", "None"),
        quoted(400, "litellm.ContentPolicyViolationError: AnthropicError - Output blocked", "None"),
        quoted(400, "Your request was rejected as a result of our safety system.", "invalid_request_error"),
        quoted(
            400, "litellm.BadRequestError: OpenAIException - Your request was rejected by the safety system", "None"
        ),
        quoted(400, "Output blocked by content filtering policy", "invalid_request_error"),
        "INVALID_ARGUMENT: OpenAI API error: litellm.ContentPolicyViolationError: AzureException - filtered [BYOK]",
        "Error code: 400 - {'error': {'message': 'no', 'type': 'x', 'code': 'content_policy_violation'}} [BYOK]",
        AZURE,
    ],
)
def test_a_refusal_by_the_content_policy_is_content_refused(error_type: str, detail: str) -> None:
    error = model_error(error_type, detail)
    assert (error.code, error.retryable) == (ErrorCode.CONTENT_REFUSED, False)
    assert "content policy" in error.message
    assert refuses_request(detail)


@pytest.mark.parametrize(
    "detail",
    [
        quoted(400, "Invalid value: 'ContentPolicyViolationError is litellm.ContentPolicyViolationError'", "None"),
        quoted(400, "unknown 'code': 'content_filter'", "invalid_request_error"),
        "the user wrote: litellm.ContentPolicyViolationError",
        quoted(500, "litellm.ContentPolicyViolationError: or so", "None"),
    ],
)
def test_a_text_that_mentions_content_policies_is_not_a_refusal(detail: str) -> None:
    assert model_error("llm_error", detail).code is ErrorCode.MODEL_ERROR


@pytest.mark.parametrize("error_type", ["llm_error", "internal_error"])
@pytest.mark.parametrize(
    ("status", "retryable", "refused"),
    [
        (400, False, True),
        (404, False, False),
        (413, False, True),
        (422, False, True),
        (403, True, False),
        (408, True, False),
        (409, True, False),
        (500, True, False),
        (503, True, False),
        (529, True, False),
    ],
)
def test_a_request_that_would_be_refused_again_is_not_retryable(
    error_type: str, status: int, retryable: bool, refused: bool
) -> None:
    detail = quoted(status, "litellm.BadRequestError: OpenAIException - no", "invalid_request_error")
    error = model_error(error_type, detail)
    assert (error.code, error.retryable) == (ErrorCode.MODEL_ERROR, retryable)
    assert refuses_request(detail) is refused


@pytest.mark.parametrize("status", [400, 413, 422, 429])
def test_budgets_plans_and_rate_limits_do_not_refuse_the_request(status: int) -> None:
    for kind in ("budget_exceeded", "throttling_error", "key_model_access_denied"):
        assert not refuses_request(quoted(status, "no", kind))


def test_a_prompt_that_is_too_long_has_its_own_message() -> None:
    words = "litellm.BadRequestError: litellm.ContextWindowExceededError: OpenAIException - 40000 tokens"
    error = model_error("internal_error", quoted(400, words, "None"))
    assert (error.retryable, error.message) == (False, "This conversation is too long for the language model.")


def test_a_failed_run_without_a_reported_error_has_a_general_one() -> None:
    assert stop_error("llm_api_error").code is ErrorCode.MODEL_ERROR
    assert not stop_error("context_window_overflow_in_system_prompt").retryable
    assert stop_error(None).retryable


@pytest.mark.parametrize(("status", "detail"), [(409, "The conversation is busy."), (422, "")])
def test_a_reason_that_repeats_the_request_is_dropped(status: int, detail: str) -> None:
    request = httpx.Request("POST", "http://letta/v1/providers/")
    reason = detail or "[{'loc': ('body', 'name'), 'input': {'api_key': 'sk-abc'}}]"
    error = APIStatusError("refused", response=httpx.Response(status, request=request), body={"detail": reason})
    assert RefusedError(error).detail == detail


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (400, "No connected db.", "no_db_connection"),
        (401, "Authentication Error, No connected db.", "auth_error"),
        (500, "DB not connected. This endpoint needs a database; …", "internal_server_error"),
        (503, "Service Unavailable, the authentication database …", "no_db_connection"),
    ],
)
@pytest.mark.parametrize("error_type", ["llm_authentication", "llm_error", "internal_error"])
def test_a_litellm_without_its_database_is_litellm_unavailable(
    status: int, words: str, kind: str, error_type: str
) -> None:
    error = model_error(error_type, quoted(status, words, kind))
    assert (error.code, error.retryable) == (ErrorCode.LITELLM_UNAVAILABLE, True)


def test_a_model_error_that_mentions_a_database_is_not_litellm_unavailable() -> None:
    words = "litellm.BadRequestError: No connected db."
    assert model_error("llm_error", quoted(400, words, "invalid_request_error")).code is not (
        ErrorCode.LITELLM_UNAVAILABLE
    )
