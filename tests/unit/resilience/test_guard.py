"""Guarded calls: what is retried, what opens the breaker, and the `retry_after` for callers."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience import Backoff, Breaker, Guard, ServiceError, retry_after_in

UNAVAILABLE = ErrorCode.LETTA_UNAVAILABLE


def guard(**options: int) -> Guard:
    return Guard(Breaker("letta", UNAVAILABLE), backoff=Backoff(0, 0), **options)


def failing(error: Exception, asked: list[int]) -> Callable[[], Awaitable[None]]:
    async def call() -> None:
        asked.append(1)
        raise error

    return call


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({"Retry-After": "17"}, 17.0),
        ({"Retry-After": " 17 "}, 17.0),
        ({"Retry-After": "0"}, 1.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "0.64"}, 1.0),
        ({"Retry-After": "100000"}, 86_400.0),
        ({"Retry-After": "Wed, 21 Oct 9999 07:28:00 GMT"}, 86_400.0),
        ({"Retry-After": "640ms"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 1.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_parsed_as_a_number(said: dict[str, str], seconds: float | None) -> None:
    assert retry_after_in(said) == seconds


def test_retry_after_is_parsed_as_a_date() -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    seconds = retry_after_in({"Retry-After": in_a_minute})
    assert seconds is not None
    assert 50 < seconds <= 60


async def test_a_call_with_a_retry_after_is_not_retried_and_passes_it_to_the_caller() -> None:
    asked: list[int] = []
    with pytest.raises(PlatformError) as refused:
        await guard().repeatable(failing(ServiceError("limited", retry_after=17), asked), deadline=5)
    assert (refused.value.code, refused.value.retry_after, len(asked)) == (UNAVAILABLE, 17, 1)


async def test_a_failure_without_a_retry_after_is_retried_and_has_the_breakers_cooldown() -> None:
    asked: list[int] = []
    with pytest.raises(PlatformError) as refused:
        await guard(attempts=3).repeatable(failing(ServiceError("away"), asked), deadline=5)
    assert (refused.value.retry_after, len(asked)) == (5.0, 3)


@pytest.mark.parametrize(("answered", "opens"), [(True, False), (False, True)])
async def test_only_an_unanswered_failure_opens_the_breaker(answered: bool, opens: bool) -> None:
    guarded = guard()
    for _ in range(guarded.breaker.threshold):
        with pytest.raises(PlatformError):
            await guarded.once(failing(ServiceError("failed", answered=answered), []), deadline=5)
    assert guarded.breaker.is_open is opens


async def test_after_a_cancelled_probe_the_next_call_is_admitted() -> None:
    breaker = Breaker("letta", UNAVAILABLE, threshold=1, shortest=0, cooldown=0)
    guarded = Guard(breaker)
    breaker.failed()
    begun = asyncio.Event()

    async def never() -> None:
        begun.set()
        await asyncio.Event().wait()

    probe = asyncio.create_task(guarded.once(never, deadline=60))
    await begun.wait()
    with pytest.raises(PlatformError):
        breaker.admit()
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)

    async def answers() -> str:
        return "well"

    assert await guarded.once(answers, deadline=5) == "well"
    assert not breaker.is_open


async def test_a_vital_call_bypasses_an_open_breaker_and_closes_it() -> None:
    guarded = guard()
    for _ in range(guarded.breaker.threshold):
        guarded.breaker.failed()

    async def answers() -> str:
        return "well"

    with pytest.raises(PlatformError):
        await guarded.repeatable(answers, deadline=5)
    assert await guarded.repeatable(answers, deadline=5, vital=True) == "well"
    assert not guarded.breaker.is_open


async def test_calls_beyond_the_slots_queue_in_order_and_do_not_open_the_breaker() -> None:
    door, begun = asyncio.Event(), list[int]()
    few = guard(slots=2)

    async def ask(number: int) -> int:
        async def call() -> int:
            begun.append(number)
            await door.wait()
            return number

        return await few.repeatable(call, deadline=5)

    asking = [asyncio.create_task(ask(number)) for number in range(6)]
    await asyncio.sleep(0)
    assert begun == [0, 1]
    asking[2].cancel()  # a cancelled call in the queue occupies no slot
    door.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, int)] == begun == [0, 1, 3, 4, 5]
    assert not few.breaker.is_open


async def test_a_vital_call_needs_no_slot() -> None:
    door = asyncio.Event()
    one = guard(slots=1)
    busy = asyncio.create_task(one.once(door.wait, deadline=5))
    await asyncio.sleep(0)

    async def renew() -> str:
        return "renewed"

    assert await one.repeatable(renew, deadline=5, vital=True) == "renewed"
    door.set()
    await busy
