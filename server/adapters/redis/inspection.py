"""Inspects a Redis for `chat doctor`. Leaves one key, which expires after a minute."""

from functools import partial

from server.adapters.redis.client import RedisClient


class RedisInspection:
    """Every method raises ReplicasUnavailableError if Redis does not answer, or refuses."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def version(self) -> str:
        info = await self._client.bounded(partial(self._client.redis.info, "server"))
        return str(info["redis_version"])

    async def write(self) -> None:
        await self._client.bounded(partial(self._client.redis.set, b"chat:doctor", b"", ex=60))
