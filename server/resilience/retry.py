"""The retry policy: exponential backoff with jitter, so that many callers do not retry at the same time."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final, Generic, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from server.aio import Sleep

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
E = TypeVar("E", bound=Exception)
_MOST_DOUBLINGS: Final = 60


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses in seconds: `first`, then doubled each time up to `longest`, each varied by the relative `jitter`."""

    first: float
    longest: float
    jitter: float = 0.3

    def pause(self, failures: int) -> float:
        """The pause after this number of failures in a row, 1 or more."""
        seconds = min(self.first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), self.longest)
        return float(seconds * random.uniform(1 - self.jitter, 1 + self.jitter))  # noqa: S311 - spreads load only

    def pauses(self) -> Iterator[float]:
        """The infinite series of pauses, for polling."""
        return map(self.pause, count(1))


async def retry(
    call: Callable[[], Awaitable[T]],
    *,
    on: type[E],
    backoff: Backoff,
    when: Callable[[E], bool] = lambda error: True,
    attempts: int | None = None,
    seconds: float | None = None,
    failed: Callable[[E, float], None] = lambda error, pause: None,
    sleep: Sleep = asyncio.sleep,
) -> T:
    """Retry an idempotent call while it raises an `on` for which `when` is true: at most `attempts` calls in all, and
    for at most `seconds`.

    `failed` is called before each pause, with the error and the pause in seconds. Raises the last error unchanged. Time
    is the event loop's; a pause that begins before the end of `seconds` is still followed by an attempt."""
    now = asyncio.get_running_loop().time
    until = None if seconds is None else now() + seconds
    try:
        return await call()
    except on as error:
        raised: E | None = error

    async def next_call() -> T:
        """The first call has been made: tenacity costs more than many a call that succeeds at once."""
        nonlocal raised
        if raised is not None:
            first, raised = raised, None
            raise first
        return await call()

    def is_enough(state: RetryCallState) -> bool:
        return (attempts is not None and state.attempt_number >= attempts) or (until is not None and now() > until)

    def report(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, on):
            failed(error, state.upcoming_sleep)

    policy = AsyncRetrying(
        sleep=sleep,
        stop=is_enough,
        wait=lambda state: backoff.pause(state.attempt_number),
        retry=retry_if_exception(lambda error: isinstance(error, on) and when(error)),
        before_sleep=report,
        reraise=True,
    )
    return await policy(next_call)


@dataclass(slots=True)
class _Pause:
    failures: int
    until: float


class FailureBackoff(Generic[K]):
    """The backoff of each of many keys: its pause grows with each failure in a row, until a success.

    `clock` in seconds, monotonic. The owner bounds the number of keys with `retain`."""

    def __init__(self, backoff: Backoff, clock: Callable[[], float] = time.monotonic) -> None:
        self._backoff = backoff
        self._clock = clock
        self._pauses: dict[K, _Pause] = {}

    def failed(self, key: K) -> float:
        """Begin a pause; return its seconds."""
        failures = self._pauses[key].failures + 1 if key in self._pauses else 1
        seconds = self._backoff.pause(failures)
        self._pauses[key] = _Pause(failures, self._clock() + seconds)
        return seconds

    def succeeded(self, key: K) -> None:
        """Reset the key's backoff."""
        self._pauses.pop(key, None)

    def is_pausing(self, key: K) -> bool:
        pause = self._pauses.get(key)
        return pause is not None and self._clock() < pause.until

    def retain(self, keys: Collection[K]) -> None:
        """Remove the failures of all other keys."""
        self._pauses = {key: pause for key, pause in self._pauses.items() if key in keys}
