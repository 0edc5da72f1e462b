"""Token buckets: so many per minute of each key, all of which may come at once. Held in memory, which is bounded."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cachetools import TTLCache

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

_FULL_AGAIN_SECONDS: Final = 60.0
"""After so long without a `take` a bucket is full, as one that is not held."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Buckets:
    """`per_minute` for each key; 0 turns the limit off. Of more than `held` keys the least recent are full again."""

    def __init__(self, per_minute: int, *, held: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._buckets: TTLCache[str, _Bucket] = TTLCache(held, _FULL_AGAIN_SECONDS, timer=clock)

    def take(self, key: str) -> None:
        """Take one. Raises PlatformError(rate_limited) with the seconds until there is one: at most a minute."""
        if not self._burst:
            return
        bucket = self._filled(key)
        if bucket.left < 1:
            raise PlatformError(ErrorCode.RATE_LIMITED, retry_after=(1 - bucket.left) / self._per_second)
        bucket.left -= 1

    def give_back(self, key: str) -> None:
        """Undo a `take`: what was tried does not count after all."""
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
