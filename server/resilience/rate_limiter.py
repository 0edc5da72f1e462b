"""Rates of requests, shared by all instances where they have a Redis; without an answer of it each instance counts."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from server.ports import ReplicasUnavailableError, SharedBuckets
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.rates import RATES, RateName
from server.protocol.shapes import wire_time
from server.resilience.token_buckets import Buckets

log = structlog.get_logger(__name__)

ALONE_SECONDS: Final = 5.0
"""How long an instance counts alone after the shared buckets did not answer, so that not every request waits."""


class RateLimiter:
    """A token bucket of one minute for each limit and key. `per_minute`: the number of each limit; 0, or a limit that
    is left out, is no limit. `clock` in seconds, monotonic; `now` is the time in refusals."""

    def __init__(
        self,
        per_minute: Mapping[RateName, int],
        shared: SharedBuckets | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._per_minute = per_minute
        self._shared = shared
        self._own = {name: Buckets(number, clock=clock) for name, number in per_minute.items()}
        self._clock = clock
        self._now = now
        self._alone_until = 0.0

    def per_minute(self, name: RateName) -> int:
        """The number of the limit; 0 for none."""
        return self._per_minute.get(name, 0)

    async def take(self, name: RateName, key: str = "") -> None:
        """Count one. Raises PlatformError(rate_limited) that says which limit, and when there is room again: in a
        minute at most."""
        if self.per_minute(name) and (wait := await self._take(name, key, 1)) > 0:
            raise rate_limited(name, wait, self._now())

    async def put_back(self, name: RateName, key: str = "") -> None:
        """Undo a `take`, for a request that should not count."""
        if self.per_minute(name):
            await self._take(name, key, -1)

    async def _take(self, name: RateName, key: str, tokens: int) -> float:
        """Seconds until there are enough tokens; 0 if they were taken."""
        if self._shared is not None and self._clock() >= self._alone_until:
            try:
                return await self._shared.take(name, key, self._per_minute[name], tokens)
            except ReplicasUnavailableError as error:
                self._alone_until = self._clock() + ALONE_SECONDS
                log.warning("rates.counted_alone", seconds=ALONE_SECONDS, reason=str(error))
        return self._own[name].take(key, tokens)


def rate_limited(name: RateName, wait: float, now: datetime) -> PlatformError:
    """The refusal by limit `name` that ends in `wait` seconds."""
    return PlatformError(
        ErrorCode.RATE_LIMITED,
        f"{RATES[name].sentence} Try again shortly.",
        retry_after=wait,
        members={"rate_limit": name, "retry_at": wire_time(now + timedelta(seconds=wait))},
    )
