"""The contract is run against the replicas in memory and against a real Redis."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.replicas.worlds import RedisWorld, ReplicaWorld, memory_world, redis_world
from tests.stack.own_redis import OwnRedis


@pytest.fixture(params=["memory", "redis"])
def server(request: pytest.FixtureRequest) -> OwnRedis | None:
    """The Redis to use; None: the replicas in memory."""
    return request.getfixturevalue("redis_server") if request.param == "redis" else None


@pytest.fixture
async def world(server: OwnRedis | None) -> AsyncIterator[ReplicaWorld]:
    if server is None:
        async with memory_world() as memory:
            yield memory
    else:
        async with redis_world(server) as real:
            yield real


@pytest.fixture
async def redis_only(redis_server: OwnRedis) -> AsyncIterator[RedisWorld]:
    """For what only a real one can show."""
    async with redis_world(redis_server) as real:
        yield real
