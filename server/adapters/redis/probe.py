"""The probe of Redis for `/ready`: whether it answers."""

import asyncio

from server.adapters.redis.client import CALL_SECONDS, RedisClient


class RedisProbe:
    """Implements `server.ports.Probe`."""

    name = "redis"

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def ping(self) -> None:
        """Raises ReplicasUnavailableError, TimeoutError."""
        async with asyncio.timeout(CALL_SECONDS):
            await self._client.bounded(self._client.redis.ping)
