"""How far LiteLLM's clock is ahead of ours, from the `Date` of its answers. Pure computation: the wall clock is given.

`Date` has whole seconds, and uvicorn renews it once a second: measured, it is up to two seconds old. So one answer says
little, but each says that the truth lies within bounds, and what all bounds have in common is narrow."""

import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

OLDEST_SECONDS = 2.5
"""How old a `Date` may be: one second cut off, one until uvicorn renews it, and what a busy event loop adds."""
DRIFT = 0.0005
"""What two clocks drift apart per second, at worst: what NTP may slew."""
UNKNOWN_SECONDS = 60.0
"""The error while no answer had a `Date`: clocks that nobody set are a minute off, not an hour."""


class Bounds(NamedTuple):
    """The truth lies between `low` and `high` seconds, as of `at` by our wall clock."""

    low: float
    high: float
    at: float


class GatewayClock:
    """What is known of the other clock. `wall` is ours: seconds since 1970."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self.now = wall
        self._known: Bounds | None = None

    @property
    def ahead(self) -> float:
        """Seconds the other clock is ahead of ours, give or take `error`."""
        known = self._widened(self.now())
        return (known.low + known.high) / 2 if known else 0.0

    @property
    def error(self) -> float:
        known = self._widened(self.now())
        return (known.high - known.low) / 2 if known else UNKNOWN_SECONDS

    def heard(self, date: str | None, asked_at: float) -> None:
        """Learn from the `Date` of an answer that begins to arrive now, to what was asked at `asked_at`."""
        now, moment = self.now(), _seconds(date)
        if moment is None or now < asked_at:  # our own clock was set back in between
            return
        low, high = moment - now, moment + OLDEST_SECONDS - asked_at
        if known := self._widened(now):
            if low <= known.high and known.low <= high:
                low, high = max(low, known.low), min(high, known.high)
            else:  # a clock was set, or this `Date` is older than any should be: the next answer tells
                low, high = min(low, known.low), max(high, known.high)
        self._known = Bounds(low, high, now)

    def _widened(self, now: float) -> Bounds | None:
        if self._known is None:
            return None
        drift = DRIFT * max(0.0, now - self._known.at)
        return Bounds(self._known.low - drift, self._known.high + drift, now)


def _seconds(date: str | None) -> float | None:
    if date is None:
        return None
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
