"""Rates of requests: token buckets that all instances share."""

from typing import Protocol


class SharedBuckets(Protocol):
    """May raise ReplicasUnavailableError: then each instance counts for itself."""

    async def take(self, name: str, key: str, per_minute: int, tokens: int = 1) -> float:
        """Take `tokens` from the bucket of limit `name` and this key, which has `per_minute` at most and gets as many a
        minute. Returns 0, or the seconds until there are enough. Negative `tokens` are put back."""
        ...
