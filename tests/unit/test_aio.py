"""Owned tasks, shared runs, periodic work, and cancelling them, also tasks that swallow a cancellation."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.aio import SingleFlight, StoppedError, TaskSet, cancel_and_wait, every, run_now
from tests.virtual_time import virtual_time


async def _deaf(times: int, ended: list[int]) -> None:
    """Swallows `times` cancellations, like a library that mistakes one for its own timeout."""
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
async def test_a_task_that_has_not_started_has_failed_or_is_none_is_accepted() -> None:
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
async def test_the_waiter_can_be_cancelled_too() -> None:
    ended: list[int] = []
    task = asyncio.create_task(_deaf(1000, ended))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(cancel_and_wait(task))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    await cancel_and_wait(task)


class _WorkError(Exception):
    pass


async def _fail(event: asyncio.Event | None = None) -> None:
    if event is not None:
        await event.wait()
    raise _WorkError("it broke")


async def _echo(text: str, event: asyncio.Event) -> str:
    await event.wait()
    return text


# -- tasks of one owner ------------------------------------------------------------------------------------------------


@virtual_time
async def test_closing_a_task_set_cancels_its_tasks_and_waits_for_them() -> None:
    ended: list[int] = []
    async with TaskSet("test") as tasks:
        running = [tasks.create(_deaf(times, ended)) for times in (0, 2)]
        await asyncio.sleep(0)
        assert len(tasks) == 2
    assert ended == [0, 2]
    assert all(task.cancelled() for task in running)
    assert len(tasks) == 0


@virtual_time
async def test_a_closed_task_set_starts_no_task() -> None:
    tasks = TaskSet("test")
    await tasks.aclose()
    await tasks.aclose()
    with pytest.raises(StoppedError):
        tasks.create(_fail())


@virtual_time
async def test_a_failure_without_a_waiter_is_logged_and_ends_no_other_task() -> None:
    opened = asyncio.Event()
    async with TaskSet("test", ignored=(ValueError,)) as tasks:
        with capture_logs() as logs:
            other = tasks.create(_echo("done", opened))
            failing = tasks.create(_fail(), name="one")
            await asyncio.wait({failing})
        assert [(line["event"], line["task"], line["log_level"]) for line in logs] == [
            ("task.failed", "test one", "error")
        ]
        assert isinstance(logs[0]["exc_info"], _WorkError)
        opened.set()
        assert await tasks.result(other) == "done"


@virtual_time
async def test_an_ignored_failure_is_not_logged() -> None:
    async with TaskSet("test", ignored=(_WorkError,)) as tasks:
        with capture_logs() as logs:
            await asyncio.wait({tasks.create(_fail())})
    assert logs == []


@virtual_time
async def test_a_failure_with_a_waiter_is_raised_there_and_not_logged() -> None:
    async with TaskSet("test") as tasks:
        with capture_logs() as logs, pytest.raises(_WorkError):
            await tasks.result(tasks.create(_fail()))
    assert logs == []


@virtual_time
async def test_a_task_continues_when_its_waiter_is_cancelled_and_its_failure_is_logged() -> None:
    opened = asyncio.Event()
    async with TaskSet("test") as tasks:
        task = tasks.create(_fail(opened))
        waiting = asyncio.create_task(tasks.result(task))
        await asyncio.sleep(0)
        await cancel_and_wait(waiting)
        assert not task.done()
        with capture_logs() as logs:
            opened.set()
            await asyncio.wait({task})
    assert [line["event"] for line in logs] == ["task.failed"]


@virtual_time
async def test_the_waiter_of_a_cancelled_task_gets_stopped_error() -> None:
    async with TaskSet("test") as tasks:
        waiting = asyncio.create_task(tasks.result(tasks.create(asyncio.sleep(3600))))
        await asyncio.sleep(0)
    with pytest.raises(StoppedError):
        await waiting


@virtual_time
async def test_a_task_does_not_inherit_the_context_of_its_creator() -> None:
    variable: ContextVar[str] = ContextVar("request", default="none")

    async def read() -> str:
        return variable.get()

    async with TaskSet("test") as tasks:
        variable.set("a request's")
        assert await tasks.result(tasks.create(read())) == "none"


# -- one run for each key ----------------------------------------------------------------------------------------------


@virtual_time
async def test_all_callers_for_one_key_share_its_run() -> None:
    flight: SingleFlight[str, str] = SingleFlight("test")
    opened, begun = asyncio.Event(), list[str]()

    async def work(key: str) -> str:
        begun.append(key)
        await opened.wait()
        return key.upper()

    asking = [asyncio.create_task(flight.run(key, partial(work, key))) for key in ("a", "b", "a", "a")]
    await asyncio.sleep(0)
    assert "a" in flight
    opened.set()
    assert await asyncio.gather(*asking) == ["A", "B", "A", "A"]
    assert begun == ["a", "b"]
    assert "a" not in flight
    assert await flight.run("a", partial(work, "a")) == "A"
    assert begun == ["a", "b", "a"]


@virtual_time
async def test_a_run_continues_when_one_or_all_callers_are_cancelled() -> None:
    flight: SingleFlight[str, str] = SingleFlight("test")
    opened, ended = asyncio.Event(), list[str]()

    async def work() -> str:
        await opened.wait()
        ended.append("run")
        return "result"

    first, second = (asyncio.create_task(flight.run("a", work)) for _ in range(2))
    await asyncio.sleep(0)
    await cancel_and_wait(first)
    third = asyncio.create_task(flight.run("a", work))
    await asyncio.sleep(0)
    await cancel_and_wait(second, third)
    assert "a" in flight
    opened.set()
    await flight.wait_until_idle("a")
    assert ended == ["run"]


@virtual_time
async def test_all_callers_get_the_failure_and_the_next_call_starts_a_new_run() -> None:
    flight: SingleFlight[str, None] = SingleFlight("test")
    opened = asyncio.Event()
    with capture_logs() as logs:
        asking = [asyncio.create_task(flight.run("a", partial(_fail, opened))) for _ in range(3)]
        await asyncio.sleep(0)
        opened.set()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [_WorkError] * 3
        assert "a" not in flight
        flight.start("a", _fail)
        await flight.wait_until_idle("a")
    assert [line["task"] for line in logs] == ["test a"]


@virtual_time
async def test_runs_that_end_within_the_grace_of_a_close_are_not_stopped() -> None:
    flight: SingleFlight[str, None] = SingleFlight("test")
    began = asyncio.get_running_loop().time()
    quick, slow = (asyncio.create_task(flight.run(str(n), partial(asyncio.sleep, n))) for n in (1, 9))
    await asyncio.sleep(0)
    await flight.aclose(2.0)
    assert asyncio.get_running_loop().time() == began + 2.0
    await quick
    with pytest.raises(StoppedError):
        await slow


@virtual_time
async def test_closing_a_single_flight_stops_its_runs_and_their_callers() -> None:
    flight: SingleFlight[str, str] = SingleFlight("test")
    waiting = asyncio.create_task(flight.run("a", partial(_echo, "never", asyncio.Event())))
    await asyncio.sleep(0)
    await flight.aclose()
    with pytest.raises(StoppedError):
        await waiting
    with pytest.raises(StoppedError):
        await flight.run("a", partial(_echo, "never", asyncio.Event()))
    with pytest.raises(StoppedError):
        flight.start("a", partial(_echo, "never", asyncio.Event()))


# -- periodic work -----------------------------------------------------------------------------------------------------


class _Pauses:
    """Records the pauses, and ends the work at the last of them."""

    def __init__(self, most: int) -> None:
        self.taken: list[float] = []
        self._most = most

    async def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)
        if len(self.taken) == self._most:
            raise asyncio.CancelledError


async def _times(most: int, work: Callable[[], Awaitable[bool | None]], **options: Any) -> list[float]:
    pauses = _Pauses(most)
    with pytest.raises(asyncio.CancelledError):
        await every(10, work, name="test", sleep=pauses.sleep, **options)
    return pauses.taken


async def test_periodic_work_is_done_at_once_and_after_each_pause() -> None:
    rounds: list[int] = []

    async def work() -> None:
        rounds.append(len(rounds))

    assert await _times(3, work) == [10, 10, 10]
    assert len(rounds) == 3
    rounds.clear()
    assert await _times(3, work, at_once=False) == [10, 10, 10]
    assert len(rounds) == 2


async def test_a_round_that_fails_is_logged_and_the_next_one_follows() -> None:
    outcomes: list[Exception | None] = [_WorkError("first"), ValueError("second"), None]

    async def work() -> None:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    with capture_logs() as logs:
        assert await _times(3, work, expected=(_WorkError,)) == [10, 10, 10]
    assert [(line["event"], line["task"], line["log_level"]) for line in logs] == [
        ("task.round_failed", "test", "warning"),
        ("task.round_failed", "test", "error"),
    ]
    assert outcomes == []


async def test_the_pause_doubles_after_each_failed_round_until_one_succeeds() -> None:
    outcomes: list[Exception | bool | None] = [False, _WorkError(), False, False, None, False, True]

    async def work() -> bool | None:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert await _times(7, work, longest=60) == [20, 40, 60, 60, 10, 20, 10]


async def test_pauses_vary_by_the_jitter() -> None:
    async def work() -> None:
        pass

    pauses = await _times(200, work, jitter=0.3)
    assert all(7 <= pause <= 13 for pause in pauses)
    assert len(set(pauses)) > 100


@virtual_time
async def test_periodic_work_ends_by_cancellation_also_during_a_round() -> None:
    tasks = TaskSet("test")
    ended: list[int] = []
    periodic = tasks.create(every(1, partial(_deaf, 0, ended), name="test"))
    await asyncio.sleep(0.5)
    await tasks.aclose()
    assert periodic.cancelled()
    assert ended == [0]


async def test_a_coroutine_is_run_without_a_task_up_to_where_it_would_wait() -> None:
    done: list[str] = []

    async def work() -> None:
        done.append("begun")
        try:
            await asyncio.get_running_loop().create_future()
            done.append("ended")
        finally:
            done.append("dropped")

    run_now(work())
    assert done == ["begun", "dropped"]


def test_a_coroutine_that_does_not_wait_is_run_to_its_end_or_its_error() -> None:
    async def work() -> None:
        raise _WorkError

    async def nothing() -> None: ...

    run_now(nothing())
    with pytest.raises(_WorkError):
        run_now(work())
