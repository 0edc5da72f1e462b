"""Answers that take the same time whatever happened meanwhile, on a clock of the test's own."""

import asyncio

import pytest

from server.auth.uniform_delay import UniformDelay
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Clock:
    """A sleep that ends when the test says so."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.passes = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.passes.wait()


async def quick() -> None:
    return None


async def refused() -> None:
    raise PlatformError(ErrorCode.CAPTCHA_FAILED)


async def test_a_quick_call_is_answered_after_the_delay_and_not_before() -> None:
    clock = Clock()
    answer = asyncio.ensure_future(UniformDelay(1.0, clock.sleep).run(quick()))
    await settle()
    assert not answer.done()
    clock.passes.set()
    await answer
    assert clock.slept == [1.0]


async def test_a_slow_call_is_answered_at_the_same_time_and_goes_on() -> None:
    clock, ends, ended = Clock(), asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        await ends.wait()
        ended.set()

    delay = UniformDelay(1.0, clock.sleep)
    clock.passes.set()
    await delay.run(slow())
    assert not ended.is_set()
    ends.set()
    await ended.wait()
    await delay.aclose()


async def test_a_failure_is_reported_after_the_delay() -> None:
    clock = Clock()
    answer = asyncio.ensure_future(UniformDelay(1.0, clock.sleep).run(refused()))
    await settle()
    assert not answer.done()
    clock.passes.set()
    with pytest.raises(PlatformError) as failure:
        await answer
    assert failure.value.code is ErrorCode.CAPTCHA_FAILED


async def test_the_rest_of_a_delay_is_what_has_not_passed_yet() -> None:
    clock = Clock()
    clock.passes.set()
    passed = UniformDelay(1.0, clock.sleep).begin()
    await passed()
    [rest] = clock.slept
    assert 0.0 < rest <= 1.0


async def test_closing_stops_the_calls_that_still_go_on() -> None:
    clock, stopped = Clock(), asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    delay = UniformDelay(1.0, clock.sleep)
    clock.passes.set()
    await delay.run(endless())
    await settle()
    await delay.aclose()
    assert stopped.is_set()
