"""Ending tasks: also those that do not take the first request to end for an answer."""

import asyncio

from server.aio import cancel_and_wait
from tests.virtual_time import virtual_time


async def _deaf(times: int, ended: list[int]) -> None:
    """Goes on after `times` requests to end, as a library does that takes one for its own timeout."""
    for _ in range(times):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    try:
        await asyncio.Event().wait()
    finally:
        ended.append(times)


@virtual_time
async def test_a_task_that_swallows_its_cancellation_is_cancelled_until_it_has_ended() -> None:
    ended: list[int] = []
    tasks = [asyncio.create_task(_deaf(times, ended)) for times in (0, 1, 3)]
    await asyncio.sleep(0)
    await cancel_and_wait(*tasks)
    assert ended == [0, 1, 3]
    assert all(task.cancelled() for task in tasks)


@virtual_time
async def test_a_clean_up_that_awaits_is_not_interrupted() -> None:
    cleaned = False

    async def tidy() -> None:
        nonlocal cleaned
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            cleaned = True

    task = asyncio.create_task(tidy())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert cleaned


@virtual_time
async def test_a_task_that_was_not_begun_has_failed_or_is_not_there_is_no_trouble() -> None:
    async def fail() -> None:
        raise ValueError

    failed, fresh = asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(3600))
    future = asyncio.get_running_loop().create_future()
    await asyncio.wait({failed})
    await cancel_and_wait(failed, None, fresh, future)
    assert fresh.cancelled()
    assert future.cancelled()
    await cancel_and_wait()


@virtual_time
async def test_a_task_that_fails_while_it_is_stopped_has_ended() -> None:
    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert isinstance(task.exception(), ValueError)


@virtual_time
async def test_one_who_waits_may_be_cancelled_too() -> None:
    ended: list[int] = []
    task = asyncio.create_task(_deaf(1000, ended))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(cancel_and_wait(task))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    await cancel_and_wait(task)
