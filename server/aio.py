"""What asyncio lacks for structured concurrency: owned background tasks, shared runs, periodic work, ending them all.

Knows no service and nothing of this server. Whoever makes a `TaskSet` or a `SingleFlight` owns its tasks and ends them
with `aclose`. No task inherits the context of the request that happened to start it: it may outlive that request, whose
id is not its own.
"""

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)
K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

REPEAT_SECONDS: Final = 2.0
"""Between two cancellations of a task. A clean-up that awaits has so long before it is interrupted as well."""

Sleep = Callable[[float], Awaitable[None]]
"""`asyncio.sleep`, or what a test puts in its place. Seconds."""


class StoppedError(Exception):
    """The task was cancelled while its waiter was not, or its owner is closed and begins no more tasks."""


async def cancel_and_wait(*tasks: "asyncio.Future[Any] | None", repeat: float = REPEAT_SECONDS) -> None:
    """Cancel the tasks and return when all of them have ended, however they end.

    Libraries can swallow a cancellation that arrives at the moment of their own timeout (`get_message` of redis-py),
    and the task then never ends. So one that has not ended is cancelled again every `repeat` seconds.
    """
    running = {task for task in tasks if task is not None}
    pending = {task for task in running if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=repeat)
    for task in running:
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not warn of an exception that was never retrieved


class TaskSet:
    """Background tasks of one owner. Close with `aclose`, or use as `async with TaskSet("name") as tasks:`.

    A failure that nobody waits for (see `result`) is logged as `task.failed`, with its traceback, unless it is one of
    the `ignored` exceptions. It ends no other task.
    """

    def __init__(self, name: str, *, ignored: tuple[type[Exception], ...] = ()) -> None:
        self._name = name
        self._ignored = ignored
        self._waiting: dict[asyncio.Task[Any], int] = {}  # for each task that has not ended, how many wait for it
        self._is_closed = False

    def create(self, work: Coroutine[Any, Any, T], *, name: str = "") -> "asyncio.Task[T]":
        """Begin `work`. The set owns the task: others may cancel it, and wait for it with `result`.

        Raises StoppedError after `aclose`."""
        if self._is_closed:
            work.close()
            raise StoppedError(f"{self._name} is closed")
        task = asyncio.create_task(work, name=f"{self._name} {name}".rstrip(), context=contextvars.Context())
        self._waiting[task] = 0
        task.add_done_callback(self._ended)
        return task

    async def result(self, task: "asyncio.Task[T]") -> T:
        """Wait for a task of this set. It goes on if the caller is cancelled.

        Raises what the task raises, which is not logged then; StoppedError if the task was cancelled."""
        if task in self._waiting:
            self._waiting[task] += 1
        try:
            await asyncio.wait((task,))
        finally:
            if task in self._waiting:
                self._waiting[task] -= 1
        if task.cancelled():
            raise StoppedError(f"{task.get_name()} was cancelled")
        return task.result()

    async def aclose(self) -> None:
        """Begin no more tasks; cancel those that run and wait until they have ended. May be called again."""
        self._is_closed = True
        await cancel_and_wait(*self._waiting)

    async def __aenter__(self) -> "TaskSet":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __len__(self) -> int:
        """How many tasks have not ended."""
        return len(self._waiting)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        is_awaited = self._waiting.pop(task) > 0
        error = None if task.cancelled() else task.exception()
        if error is not None and not is_awaited and not isinstance(error, self._ignored):
            log.error("task.failed", task=task.get_name(), exc_info=error)


class SingleFlight(Generic[K, T]):
    """At most one run for each key at a time, shared by all who wait for it; nothing is cached when it has ended.

    A run goes on when one who waits is cancelled, also when all of them are: `aclose` alone cancels it. A failure that
    nobody waits for is logged as by `TaskSet`.
    """

    def __init__(self, name: str, *, ignored: tuple[type[Exception], ...] = ()) -> None:
        self._tasks = TaskSet(name, ignored=ignored)
        self._runs: dict[K, asyncio.Task[T]] = {}

    def __contains__(self, key: K) -> bool:
        """Whether a run of this key is under way."""
        return key in self._runs

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the run of this key returns: the one that is under way, else a new one that does `work`.

        Raises what the run raises, or StoppedError after or by `aclose`."""
        return await self._tasks.result(self._begin(key, work))

    def start(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """Make sure that a run of this key is under way, without waiting. Raises StoppedError after `aclose`."""
        self._begin(key, work)

    async def settled(self, key: K) -> None:
        """Return when no run of this key is under way, however it ended."""
        while (run := self._runs.get(key)) is not None:
            await asyncio.wait((run,))

    async def aclose(self) -> None:
        """Begin no more runs; cancel those that are under way and wait until they have ended."""
        await self._tasks.aclose()

    def _begin(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> "asyncio.Task[T]":
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = self._tasks.create(work(), name=str(key))
            run.add_done_callback(lambda _: self._runs.pop(key))
        return run


async def every(
    seconds: float,
    work: Callable[[], Awaitable[bool | None]],
    *,
    name: str,
    at_once: bool = True,
    jitter: float = 0.0,
    longest: float | None = None,
    expected: tuple[type[Exception], ...] = (),
    sleep: Sleep = asyncio.sleep,
) -> None:
    """Do `work`, pause for `seconds`, and so on until cancelled. Run it in a task that an owner cancels.

    A round that raises is logged as `task.round_failed` (with a traceback, or as one warning for `expected` exceptions)
    and the next one comes all the same. After a round that raised or returned False the pause is twice the last one, up
    to `longest` seconds. `jitter` varies each pause by this share of it in both directions; `at_once` is False where
    the pause comes first."""

    async def rest(pause: float) -> None:
        await sleep(pause * random.uniform(1 - jitter, 1 + jitter))  # noqa: S311 - spreads load, guards nothing

    pause = seconds
    if not at_once:
        await rest(pause)
    while True:
        succeeded = await _round(work, name, expected)
        pause = seconds if succeeded else min(pause * 2, longest or seconds)
        await rest(pause)


async def _round(work: Callable[[], Awaitable[bool | None]], name: str, expected: tuple[type[Exception], ...]) -> bool:
    """Returns False if the round failed."""
    try:
        return await work() is not False
    except expected as error:
        log.warning("task.round_failed", task=name, reason=f"{type(error).__name__}: {error}")
    except Exception:
        log.exception("task.round_failed", task=name)
    return False
