"""Many long waits with one timer of the event loop."""

import asyncio
from contextvars import ContextVar
from functools import partial
from random import Random

import pytest
import uvloop

from server.streaming.timers import GRID_SECONDS, Timers
from tests.virtual_time import virtual_time


@virtual_time
async def test_callbacks_are_called_in_order_and_at_most_one_step_of_the_grid_late() -> None:
    timers, loop, called = Timers(), asyncio.get_running_loop(), {}
    began = loop.time()
    waits = (25.0, 10.03, 0.0, 3600.0, 10.0)

    def call(seconds: float) -> None:
        called[seconds] = loop.time() - began

    for seconds in waits:
        timers.call_later(seconds, partial(call, seconds))
    await asyncio.sleep(3601)
    assert list(called) == sorted(waits)
    assert all(0 <= late - seconds <= GRID_SECONDS + 1e-6 for seconds, late in called.items())
    assert len(timers) == 0


@virtual_time
async def test_a_callback_may_wait_again_and_one_that_is_earlier_than_all_others_is_not_late() -> None:
    timers, loop = Timers(), asyncio.get_running_loop()
    began, calls = loop.time(), []

    def again() -> None:
        calls.append(round(loop.time() - began))
        timers.call_later(25.0, again)

    timers.call_later(25.0, again)
    await asyncio.sleep(30)
    timers.call_later(3.0, lambda: calls.append(round(loop.time() - began)))
    await asyncio.sleep(71)
    assert calls == [25, 33, 50, 75, 100]


@virtual_time
async def test_a_cancelled_callback_is_not_called_also_if_it_is_due_in_the_same_round() -> None:
    timers, called = Timers(), []
    early = timers.call_later(1.0, lambda: called.append("early"))
    second = timers.call_later(2.05, lambda: called.append("second"))
    first = timers.call_later(2.01, second.cancel)
    timers.call_later(3.0, lambda: called.append("last"))
    early.cancel()
    await asyncio.sleep(5)
    first.cancel()  # has no effect any more
    assert called == ["last"]


@virtual_time
async def test_a_callback_that_fails_ends_no_other() -> None:
    timers, called, failures = Timers(), [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(str(context["exception"])))

    def fail() -> None:
        raise ValueError("failed")

    timers.call_later(1.0, fail)
    timers.call_later(1.0, lambda: called.append("same round"))
    timers.call_later(2.0, lambda: called.append("later"))
    await asyncio.sleep(3)
    assert (failures, called) == (["failed"], ["same round", "later"])


@virtual_time
async def test_timers_that_were_cancelled_are_not_kept_until_their_time() -> None:
    timers, called = Timers(), list[float]()
    random = Random(1)
    kept = set[float]()
    for number in range(10_000):
        seconds = random.uniform(60.0, 3600.0)
        timer = timers.call_later(seconds, partial(called.append, seconds))
        if number % 100:
            timer.cancel()
        else:
            kept.add(seconds)
    assert len(timers) < 400
    await asyncio.sleep(3601)
    assert called == sorted(kept)


@virtual_time
async def test_callbacks_do_not_run_in_the_context_of_the_request_that_set_the_timer() -> None:
    request, seen = ContextVar("request", default="none"), []
    timers = Timers()
    request.set("of another user")
    timers.call_later(1.0, lambda: seen.append(request.get()))
    await asyncio.sleep(2)
    assert seen == ["none"]


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.0995, 0.1, 0.2])
def test_on_uvloop_whose_timers_may_be_early_by_half_a_millisecond(seconds: float) -> None:
    async def wait() -> bool:
        called = asyncio.Event()
        Timers().call_later(seconds, called.set)
        return await asyncio.wait_for(called.wait(), 120)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(wait())
