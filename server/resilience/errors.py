"""The error of an unavailable service, and the time after which to retry."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_RETRY_SECONDS: Final = 86_400.0
"""Seconds: the upper bound of every `retry_after`, a day."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")


class ServiceError(Exception):
    """The service did not answer, answered that it is unavailable (5xx, 429), or answered with something unreadable.

    An idempotent call may be retried: after `retry_after` seconds, if the service sent them. `answered`: the service
    failed at this request (500), but may serve other requests, so the breaker does not count it."""

    def __init__(self, message: str, *, retry_after: float | None = None, answered: bool = False) -> None:
        self.retry_after = retry_after
        self.answered = answered
        super().__init__(message)


def retry_after_in(headers: Mapping[str, str]) -> float | None:
    """The seconds of a `Retry-After` header, a number or a date (RFC 9110): 1 to 86,400. None if there is none."""
    value = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(value):
        seconds = float(value)
    else:
        try:
            seconds = (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return min(max(1.0, seconds), LONGEST_RETRY_SECONDS)
