"""SharedBuckets on Redis: token buckets that all instances of a deployment share."""

import hashlib
from typing import Final

from server.adapters.redis.client import Call, RedisClient, Script

_TAKE: Final = Script.named("take")


class RedisBuckets:
    """Implements `server.ports.SharedBuckets`. `deployment` separates deployments that share a Redis. A bucket expires
    when it is full again. A call whose answer was lost may count twice."""

    def __init__(self, client: RedisClient, deployment: str) -> None:
        self._client = client
        self._prefix = f"chat:2:{deployment}:rate:".encode()

    async def take(self, name: str, key: str, per_minute: int, tokens: int = 1) -> float:
        # Keys are addresses and the like, which do not belong in Redis.
        hashed = hashlib.sha256(f"{name}\0{key}".encode()).hexdigest()[:32].encode()
        wait: int = await self._client.run(Call(_TAKE, (self._prefix + hashed,), (per_minute, tokens)))
        return wait / 1000
