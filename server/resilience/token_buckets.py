"""Token buckets: a rate per minute and key, with a burst of one minute. In memory, for a bounded number of keys."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cachetools import TTLCache

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

_FULL_AGAIN_SECONDS: Final = 60.0
"""A bucket is full after this time without a `take`, so it can be evicted."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Buckets:
    """`per_minute` for each key; 0 turns the limit off. At most `held` buckets: the least recent are evicted, which
    makes them full again."""

    def __init__(self, per_minute: int, *, held: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._buckets: TTLCache[str, _Bucket] = TTLCache(held, _FULL_AGAIN_SECONDS, timer=clock)

    def take(self, key: str) -> None:
        """Take a token. Raises PlatformError(rate_limited) with the seconds until there is one: at most a minute."""
        if not self._burst:
            return
        bucket = self._filled(key)
        if bucket.left < 1:
            raise PlatformError(ErrorCode.RATE_LIMITED, retry_after=(1 - bucket.left) / self._per_second)
        bucket.left -= 1

    def put_back(self, key: str) -> None:
        """Undo a `take`, for a request that should not count."""
        if self._burst:
            bucket = self._filled(key)
            bucket.left = min(self._burst, bucket.left + 1)

    def _filled(self, key: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.get(key) or _Bucket(self._burst, now)
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._per_second)
        bucket.at = now
        self._buckets[key] = bucket
        return bucket
