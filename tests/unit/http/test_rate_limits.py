"""The rate limit per client address."""

import pytest

from server.http.rate_limits import AddressLimiter
from server.protocol.errors import PlatformError
from server.resilience.rate_limiter import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def limiter_of(per_minute: int, clock: Clock | None = None) -> AddressLimiter:
    return AddressLimiter(RateLimiter({"auth_requests": per_minute}, clock=clock or Clock()))


async def test_attempts_are_allowed_again_after_retry_after() -> None:
    clock = Clock()
    limiter = limiter_of(6, clock)
    for _ in range(6):
        await limiter.count("192.0.2.1")
    with pytest.raises(PlatformError) as refused:
        await limiter.count("192.0.2.1")
    assert refused.value.retry_after_seconds == 10
    clock.now += 10
    await limiter.count("192.0.2.1")
    with pytest.raises(PlatformError):
        await limiter.count("192.0.2.1")


async def test_each_address_has_its_own_limit() -> None:
    limiter = limiter_of(1)
    await limiter.count("192.0.2.1")
    await limiter.count("192.0.2.2")
    await limiter.count("::ffff:192.0.2.3")
    await limiter.count("::ffff:192.0.2.4")
    with pytest.raises(PlatformError):
        await limiter.count("::ffff:192.0.2.4")


async def test_addresses_of_one_ipv6_network_share_a_limit() -> None:
    limiter = limiter_of(1)
    await limiter.count("2001:db8::1")
    with pytest.raises(PlatformError):
        await limiter.count("2001:db8::ffff")
    await limiter.count("2001:db8:0:1::1")
