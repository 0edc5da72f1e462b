"""Estimates how far LiteLLM's clock is ahead of ours, from the `Date` header of its answers. Pure.

`Date` has whole seconds, and uvicorn updates it once a second: measured, it is up to two seconds old. So one answer
gives wide bounds of the offset; the intersection of the bounds of several answers is narrow."""

import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

OLDEST_SECONDS = 2.5
"""The maximum age of a `Date`: one second truncated, one until uvicorn updates it, and delays of the event loop."""
DRIFT = 0.0005
"""The maximum drift of two clocks per second: the rate at which NTP may slew."""
UNKNOWN_SECONDS = 60.0
"""The assumed error before the first `Date`: unsynchronized clocks differ by a minute, not an hour."""


class Bounds(NamedTuple):
    """The offset is between `low` and `high` seconds, as of `at` by our wall clock."""

    low: float
    high: float
    at: float


class GatewayClock:
    """The offset of the other clock. `wall` is ours: seconds since 1970."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self.now = wall
        self._known: Bounds | None = None

    @property
    def ahead(self) -> float:
        """Seconds the other clock is ahead of ours, plus or minus `error`."""
        known = self._widened(self.now())
        return (known.low + known.high) / 2 if known else 0.0

    @property
    def error(self) -> float:
        known = self._widened(self.now())
        return (known.high - known.low) / 2 if known else UNKNOWN_SECONDS

    def observe(self, date: str | None, asked_at: float) -> None:
        """Narrow the bounds by the `Date` of an answer that begins to arrive now, for a request sent at `asked_at`."""
        now, moment = self.now(), _seconds(date)
        if moment is None or now < asked_at:  # our own clock was set back since the request
            return
        low, high = moment - now, moment + OLDEST_SECONDS - asked_at
        if known := self._widened(now):
            if low <= known.high and known.low <= high:
                low, high = max(low, known.low), min(high, known.high)
            else:  # a clock was set, or this `Date` is too old: the next answer decides
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
