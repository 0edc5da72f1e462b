"""Rates of requests: on one instance, shared by several, and while what they share does not answer."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import pytest

from server.protocol.errors import PlatformError
from server.protocol.rates import RateName
from server.resilience.rate_limiter import ALONE_SECONDS, RateLimiter
from server.resilience.token_buckets import Buckets
from tests.fakes.rates import FakeBuckets

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


@dataclass
class Instances:
    """Instances with one clock and what they share."""

    seconds: float = 0.0
    shared: FakeBuckets = field(init=False)

    def __post_init__(self) -> None:
        self.shared = FakeBuckets(lambda: self.seconds)

    def limiter(self, *, alone: bool = False, **per_minute: int) -> RateLimiter:
        rates = cast("dict[RateName, int]", per_minute)
        return RateLimiter(rates, None if alone else self.shared, clock=lambda: self.seconds, now=lambda: NOON)


async def taken(limiter: RateLimiter, times: int, name: RateName = "requests", key: str = "ann") -> int:
    """How many of `times` requests are allowed."""
    allowed = 0
    for _ in range(times):
        try:
            await limiter.take(name, key)
            allowed += 1
        except PlatformError:
            pass
    return allowed


@pytest.mark.parametrize("alone", [True, False])
async def test_a_refusal_says_which_limit_and_until_when(alone: bool) -> None:
    limiter = Instances().limiter(requests=6, alone=alone)
    assert await taken(limiter, 6) == 6
    with pytest.raises(PlatformError) as refusal:
        await limiter.take("requests", "ann")
    error = refusal.value
    assert (error.code, error.retry_after_seconds) == ("rate_limited", 10)
    assert error.members == {"rate_limit": "requests", "retry_at": "2026-11-29T12:00:10Z"}
    assert "Too many requests." in error.message


@pytest.mark.parametrize("alone", [True, False])
async def test_each_limit_and_each_key_has_its_own_count(alone: bool) -> None:
    limiter = Instances().limiter(requests=2, memory_requests=1, alone=alone)
    assert await taken(limiter, 9) == 2
    assert await taken(limiter, 9, key="ben") == 2
    assert await taken(limiter, 9, "memory_requests") == 1
    assert await taken(limiter, 9, "mails") == 9


@pytest.mark.parametrize("alone", [True, False])
async def test_what_is_put_back_can_be_taken_again_and_no_more(alone: bool) -> None:
    limiter = Instances().limiter(requests=2, alone=alone)
    assert await taken(limiter, 2) == 2
    for _ in range(5):
        await limiter.put_back("requests", "ann")
    assert await taken(limiter, 5) == 2


async def test_without_a_limit_nothing_is_counted() -> None:
    instances = Instances()
    limiter = instances.limiter(requests=0)
    assert await taken(limiter, 1000) == 1000
    await limiter.put_back("requests", "ann")
    assert instances.shared.asked == 0


async def test_instances_share_one_count() -> None:
    instances = Instances()
    first, second = instances.limiter(requests=4), instances.limiter(requests=4)
    assert await taken(first, 3) + await taken(second, 3) == 4
    instances.seconds += 15
    assert await taken(second, 3) == 1


async def test_while_the_shared_buckets_do_not_answer_each_instance_counts_alone() -> None:
    instances = Instances()
    first, second = instances.limiter(requests=4), instances.limiter(requests=4)
    assert await taken(first, 9) == 4
    instances.shared.unavailable = True
    assert (await taken(first, 9), await taken(second, 9)) == (4, 4)


async def test_an_instance_that_counts_alone_does_not_wait_for_each_request() -> None:
    instances = Instances()
    limiter = instances.limiter(requests=100)
    instances.shared.unavailable = True
    await taken(limiter, 50)
    assert instances.shared.asked == 1
    instances.shared.unavailable = False
    instances.seconds += ALONE_SECONDS
    await taken(limiter, 5)
    assert instances.shared.asked == 6


def test_the_least_recently_used_key_is_evicted() -> None:
    buckets = Buckets(1, held=2, clock=lambda: 0.0)
    assert [buckets.take(key) > 0 for key in ("a", "b", "a", "c", "b", "c")] == [
        False,
        False,
        True,
        False,
        False,
        True,
    ]
