"""Token buckets: a rate per minute and key, with a burst of one minute. In memory, for a bounded number of keys."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cachetools import TTLCache

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

    def take(self, key: str, tokens: int = 1) -> float:
        """Take `tokens`; negative ones are put back. Returns 0, or the seconds until there are enough: at most a minute
        for one."""
        if not self._burst:
            return 0.0
        bucket = self._filled(key)
        if bucket.left < tokens:
            return (tokens - bucket.left) / self._per_second
        bucket.left = min(self._burst, bucket.left - tokens)
        return 0.0

    def _filled(self, key: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.get(key) or _Bucket(self._burst, now)
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._per_second)
        bucket.at = now
        self._buckets[key] = bucket
        return bucket
