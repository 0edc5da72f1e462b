"""Bounds every call to a service: a deadline, a limit of concurrent calls, retries, and the service's breaker."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from server.protocol.errors import PlatformError
from server.resilience.breaker import Breaker
from server.resilience.errors import ServiceError
from server.resilience.retry import Backoff, retry

T = TypeVar("T")

BACKOFF: Final = Backoff(first=0.2, longest=2.0)


@dataclass(slots=True)
class Guard:
    """Runs calls to one service. A call raises ServiceError when the service, not the request, is at fault.

    At most `slots` calls run at a time; the others queue in order. The time in the queue is not the service's fault: it
    does not count towards the deadline, and does not open the breaker.
    """

    breaker: Breaker
    attempts: int = 3
    backoff: Backoff = BACKOFF
    slots: int = 1000
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.slots)

    async def once(self, call: Callable[[], Awaitable[T]], *, deadline: float) -> T:
        """One call within `deadline` seconds. Raises PlatformError(<service>_unavailable)."""
        try:
            return await self._attempt(call, deadline)
        except ServiceError as cause:
            raise self._unavailable(cause) from cause

    async def repeatable(self, call: Callable[[], Awaitable[T]], *, deadline: float, vital: bool = False) -> T:
        """An idempotent call: up to `attempts` times with jittered backoff, each within `deadline`.

        Not retried if the service sent a `Retry-After`. `vital`: bypasses the open breaker and the queue, for rare
        calls whose failure would affect all users."""
        try:
            return await retry(
                partial(self._attempt, call, deadline, vital=vital),
                on=ServiceError,
                when=lambda error: error.retry_after is None,  # else it is too early to retry
                backoff=self.backoff,
                attempts=self.attempts,
            )
        except ServiceError as cause:
            raise self._unavailable(cause) from cause

    def _unavailable(self, cause: ServiceError) -> PlatformError:
        return PlatformError(self.breaker.code, retry_after=cause.retry_after or self.breaker.cooldown)

    async def _attempt(self, call: Callable[[], Awaitable[T]], deadline: float, *, vital: bool = False) -> T:
        if vital:
            return await self._bounded(call, deadline)
        async with self._slots:
            self.breaker.admit()
            return await self._bounded(call, deadline)

    async def _bounded(self, call: Callable[[], Awaitable[T]], deadline: float) -> T:
        try:
            async with asyncio.timeout(deadline):
                result = await call()
        except ServiceError as error:
            if error.answered:
                self.breaker.undecided()
            else:
                self.breaker.failed()
            raise
        except TimeoutError as cause:
            self.breaker.failed()
            raise ServiceError(f"no answer within {deadline} s") from cause
        except asyncio.CancelledError:
            self.breaker.undecided()
            raise
        except Exception:
            self.breaker.succeeded()  # it answered, and the error concerns the request
            raise
        self.breaker.succeeded()
        return result
