"""Rates that instances share: one suite for the fake and for Redis."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from pydantic import SecretStr

from server.adapters.redis.buckets import RedisBuckets
from server.adapters.redis.client import RedisClient
from server.ports import ReplicasUnavailableError, SharedBuckets
from tests.fakes.rates import FakeBuckets
from tests.stack.own_redis import OwnRedis
from tests.stack.running_stack import free_port


@pytest.fixture(params=["memory", "redis"])
async def buckets(request: pytest.FixtureRequest) -> AsyncIterator[SharedBuckets]:
    if request.param == "memory":
        yield FakeBuckets(time.monotonic)
        return
    server: OwnRedis = request.getfixturevalue("redis_server")
    async with aclosing(RedisClient(SecretStr(server.url))) as client:
        yield RedisBuckets(client, uuid.uuid4().hex)


async def test_a_bucket_has_as_many_tokens_as_a_minute_and_says_when_there_is_the_next(buckets: SharedBuckets) -> None:
    began = time.monotonic()
    waits = [await buckets.take("requests", "ann", 3) for _ in range(4)]
    passed = time.monotonic() - began
    assert waits[:3] == [0, 0, 0]
    assert 20 - passed - 1 < waits[3] <= 20
    assert await buckets.take("requests", "ann", 3) <= waits[3]


async def test_limits_and_keys_have_buckets_of_their_own(buckets: SharedBuckets) -> None:
    for name, key in (("requests", "ann"), ("requests", "ben"), ("mails", "ann"), ("requests", "ann\0mails")):
        assert await buckets.take(name, key, 1) == 0
        assert await buckets.take(name, key, 1) > 0


async def test_a_bucket_fills_again(buckets: SharedBuckets) -> None:
    async with asyncio.timeout(120):
        while not await buckets.take("requests", "ann", 600):
            pass
        while await buckets.take("requests", "ann", 600):
            pass


async def test_a_token_that_is_put_back_can_be_taken_and_no_bucket_overflows(buckets: SharedBuckets) -> None:
    assert await buckets.take("requests", "ann", 2, -1) == 0
    assert [await buckets.take("requests", "ann", 2) for _ in range(2)] == [0, 0]
    assert await buckets.take("requests", "ann", 2, -1) == 0
    assert await buckets.take("requests", "ann", 2) == 0
    assert await buckets.take("requests", "ann", 2) > 0


async def test_concurrent_requests_get_no_more_than_there_is(buckets: SharedBuckets) -> None:
    waits = await asyncio.gather(*(buckets.take("requests", "ann", 2) for _ in range(60)))
    assert waits.count(0) == 2


async def test_redis_keeps_no_key_longer_than_a_minute_and_no_address(redis_server: OwnRedis) -> None:
    deployment = uuid.uuid4().hex
    async with aclosing(RedisClient(SecretStr(redis_server.url))) as client:
        await RedisBuckets(client, deployment).take("mails", "ann@example.com", 3)
        [key] = [key async for key in client.redis.scan_iter(f"*{deployment}*")]
        assert b"ann" not in key
        assert 0 < await client.redis.pttl(key) <= 60_000


async def test_a_redis_that_is_not_there_is_said_so() -> None:
    async with aclosing(RedisClient(SecretStr(f"redis://127.0.0.1:{free_port()}/0"))) as client:
        with pytest.raises(ReplicasUnavailableError):
            await RedisBuckets(client, "deployment").take("requests", "ann", 3)
