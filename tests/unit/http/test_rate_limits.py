"""The rate limit per client address."""

import pytest

from server.http.rate_limits import AddressLimiter
from server.protocol.errors import PlatformError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_attempts_are_allowed_again_after_retry_after() -> None:
    clock = Clock()
    limiter = AddressLimiter(6, clock=clock)
    for _ in range(6):
        limiter.count("192.0.2.1")
    with pytest.raises(PlatformError) as refused:
        limiter.count("192.0.2.1")
    assert refused.value.retry_after_seconds == 10
    clock.now += 10
    limiter.count("192.0.2.1")
    with pytest.raises(PlatformError):
        limiter.count("192.0.2.1")


def test_each_address_has_its_own_limit() -> None:
    limiter = AddressLimiter(1, clock=Clock())
    limiter.count("192.0.2.1")
    limiter.count("192.0.2.2")
    limiter.count("::ffff:192.0.2.3")
    limiter.count("::ffff:192.0.2.4")
    with pytest.raises(PlatformError):
        limiter.count("::ffff:192.0.2.4")


def test_addresses_of_one_ipv6_network_share_a_limit() -> None:
    limiter = AddressLimiter(1, clock=Clock())
    limiter.count("2001:db8::1")
    with pytest.raises(PlatformError):
        limiter.count("2001:db8::ffff")
    limiter.count("2001:db8:0:1::1")


def test_the_least_recently_used_address_is_evicted() -> None:
    limiter = AddressLimiter(1, held=2, clock=Clock())
    limiter.count("192.0.2.1")
    limiter.count("192.0.2.2")
    with pytest.raises(PlatformError):
        limiter.count("192.0.2.1")
    limiter.count("192.0.2.3")
    limiter.count("192.0.2.2")
    with pytest.raises(PlatformError):
        limiter.count("192.0.2.3")
