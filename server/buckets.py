"""Token buckets: so many per minute of each key, all of which may come at once. Held in memory, which is bounded."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Buckets:
    """`per_minute` for each key; 0 turns the limit off. When too many keys come, the least recent are forgotten."""

    def __init__(
        self, per_minute: int, *, remembered: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = float(per_minute)
        self._per_second = per_minute / 60
        self._remembered = remembered
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

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
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now)
        self._buckets[key] = bucket
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._per_second)
        bucket.at = now
        while len(self._buckets) > self._remembered:
            self._buckets.popitem(last=False)
        return bucket
