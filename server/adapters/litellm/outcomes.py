"""Maps LiteLLM's refusals to the platform's error."""

import structlog

from server.adapters.litellm.client import Answer
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)


def refused(what: str, answer: Answer) -> PlatformError:
    """The error of a refusal. Logs only its type, since LiteLLM's message may contain addresses and key hashes."""
    log.error("litellm.refused", what=what, status=answer.status, kind=answer.error.get("type"))
    return PlatformError(
        ErrorCode.INTERNAL_ERROR, f"The model gateway refused the {what} (HTTP {answer.status}).", retryable=False
    )
