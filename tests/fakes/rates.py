"""SharedBuckets in memory: what instances share, and an outage."""

from collections.abc import Callable
from dataclasses import dataclass, field

from server.ports import ReplicasUnavailableError
from server.resilience.token_buckets import Buckets


@dataclass(slots=True)
class FakeBuckets:
    """Implements `server.ports.SharedBuckets`. `asked` counts its calls."""

    clock: Callable[[], float]
    unavailable: bool = False
    asked: int = 0
    buckets: dict[int, Buckets] = field(default_factory=dict)

    async def take(self, name: str, key: str, per_minute: int, tokens: int = 1) -> float:
        self.asked += 1
        if self.unavailable:
            raise ReplicasUnavailableError("no answer")
        buckets = self.buckets.setdefault(per_minute, Buckets(per_minute, clock=self.clock))
        return buckets.take(f"{name} {key}", tokens)
