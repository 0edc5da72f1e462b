"""How a service says that it cannot answer now, and when to come back."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_RETRY_SECONDS: Final = 86_400.0
"""Seconds: no client is asked to come back later than a day from now."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")


class ServiceError(Exception):
    """The service did not answer, or answered that it cannot right now (5xx, 429), or with something that is no answer.

    May be repeated if idempotent: `retry_after` seconds later, where the service said so. `answered`: it is there and
    failed at this request (500), which says nothing of other users' requests."""

    def __init__(self, message: str, *, retry_after: float | None = None, answered: bool = False) -> None:
        self.retry_after = retry_after
        self.answered = answered
        super().__init__(message)


def retry_after_in(headers: Mapping[str, str]) -> float | None:
    """The seconds that a `Retry-After` header asks for, given as a number or as a date (RFC 9110): 1 to 86,400."""
    said = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(said):
        seconds = float(said)
    else:
        try:
            seconds = (parsedate_to_datetime(said).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return min(max(1.0, seconds), LONGEST_RETRY_SECONDS)
