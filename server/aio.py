"""Structured concurrency beyond asyncio: owned background tasks, shared runs, periodic work, and cancelling them.

Independent of this server. The creator of a `TaskSet` or a `SingleFlight` owns its tasks and ends them with `aclose`.
No task inherits the context of the request that started it, since it may outlive the request and must not log its id.
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
"""Between two cancellations of a task. A clean-up that awaits is interrupted after this time."""

Sleep = Callable[[float], Awaitable[None]]
"""`asyncio.sleep`, or a test's replacement. Seconds."""


class StoppedError(Exception):
    """The task was cancelled while its waiter was not, or its owner is closed and starts no more tasks."""


async def cancel_and_wait(*tasks: "asyncio.Future[Any] | None", repeat: float = REPEAT_SECONDS) -> None:
    """Cancel the tasks and return when all of them have ended, with or without an error.

    Libraries can swallow a cancellation that arrives together with their own timeout (`get_message` of redis-py), and
    the task would not end. So the tasks are cancelled again every `repeat` seconds until they have ended.
    """
    running = {task for task in tasks if task is not None}
    pending = {task for task in running if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=repeat)
    for task in running:
        if not task.cancelled():
            task.exception()  # retrieve it, so that asyncio does not log that it was never retrieved


def run_now(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine without a task of its own, up to where it would wait; what is left of it is dropped."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()


class TaskSet:
    """Background tasks of one owner. Close with `aclose`, or use as `async with TaskSet("name") as tasks:`.

    A failure without a waiter (see `result`) is logged as `task.failed`, with its traceback, unless it is one of the
    `ignored` exceptions. It does not end other tasks.
    """

    def __init__(self, name: str, *, ignored: tuple[type[Exception], ...] = ()) -> None:
        self._name = name
        self._ignored = ignored
        self._waiting: dict[asyncio.Task[Any], int] = {}  # the number of waiters of each task that has not ended
        self._is_closed = False

    def create(self, work: Coroutine[Any, Any, T], *, name: str = "") -> "asyncio.Task[T]":
        """Start `work`. The set owns the task; others may cancel it, and wait for it with `result`.

        Raises StoppedError after `aclose`."""
        if self._is_closed:
            work.close()
            raise StoppedError(f"{self._name} is closed")
        task = asyncio.create_task(work, name=f"{self._name} {name}".rstrip(), context=contextvars.Context())
        self._waiting[task] = 0
        task.add_done_callback(self._ended)
        return task

    async def result(self, task: "asyncio.Task[T]") -> T:
        """Wait for a task of this set. It continues if the caller is cancelled.

        Raises the task's exception, which is then not logged; StoppedError if the task was cancelled."""
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

    async def aclose(self, grace: float = 0.0) -> None:
        """Start no more tasks; cancel those that still run after `grace` seconds, and wait until all have ended. May be
        called again."""
        self._is_closed = True
        if grace and self._waiting:
            await asyncio.wait(tuple(self._waiting), timeout=grace)
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
    """At most one run per key at a time, shared by all callers. Its result is not cached.

    A run continues when its callers are cancelled, even all of them; only `aclose` cancels it. A failure without a
    waiter is logged as by `TaskSet`.
    """

    def __init__(self, name: str, *, ignored: tuple[type[Exception], ...] = ()) -> None:
        self._tasks = TaskSet(name, ignored=ignored)
        self._runs: dict[K, asyncio.Task[T]] = {}

    def __contains__(self, key: object) -> bool:
        """Whether a run of this key is active."""
        return key in self._runs

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the active run of this key, or of a new one that does `work`.

        Raises the run's exception, or StoppedError if `aclose` was called."""
        return await self._tasks.result(self._begin(key, work))

    def start(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """Start a run of this key unless one is active, without waiting. Raises StoppedError after `aclose`."""
        self._begin(key, work)

    async def wait_until_idle(self, key: K) -> None:
        """Return when no run of this key is active. Does not raise a run's exception."""
        while (run := self._runs.get(key)) is not None:
            await asyncio.wait((run,))

    async def aclose(self, grace: float = 0.0) -> None:
        """Start no more runs; cancel those still active after `grace` seconds, and wait until all have ended."""
        await self._tasks.aclose(grace)

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
    """Do `work`, pause for `seconds`, and repeat until cancelled. Run it in a task that an owner cancels.

    A round that raises is logged as `task.round_failed` (with a traceback, or as a warning for `expected` exceptions),
    and the next one follows. After a round that raised or returned False the pause doubles, up to `longest` seconds.
    `jitter` varies each pause by this share of it in both directions. `at_once=False`: begin with a pause."""

    async def rest(pause: float) -> None:
        await sleep(pause * random.uniform(1 - jitter, 1 + jitter))  # noqa: S311 - spreads load only

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
