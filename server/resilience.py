"""How every call to a service is bounded: one deadline, retries for what may be repeated, and a breaker per service.

Adapters wrap their calls in a `Guard`; nothing here knows any service.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import structlog
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)
T = TypeVar("T")
LONGEST_RETRY_SECONDS: Final = 86_400.0
"""Seconds: no client is asked to come back later than a day from now."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")


class ServiceError(Exception):
    """The service did not answer, or answered that it cannot right now (5xx, 429), or with something that is no answer.

    May be repeated if idempotent: `retry_after` seconds later, where the service said so. `answered`: it is there and
    failed at this request (500), which says nothing of other users' requests."""

    def __init__(self, message: str, *, retry_after: float | None = None, answered: bool = False) -> None:
        self.retry_after = retry_after
        self.answered = answered
        super().__init__(message)


def retry_after_in(headers: Mapping[str, str]) -> float | None:
    """The seconds that a `Retry-After` header asks for, given as a number or as a date (RFC 9110): 1 to 86,400."""
    said = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(said):
        seconds = float(said)
    else:
        try:
            seconds = (parsedate_to_datetime(said).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return min(max(1.0, seconds), LONGEST_RETRY_SECONDS)


@dataclass(slots=True)
class Breaker:
    """Opens after `threshold` calls in a row that the service did not answer; then refuses at once for `cooldown`
    seconds and lets one call try."""

    service: str
    code: ErrorCode
    threshold: int = 5
    cooldown: float = 5.0
    clock: Callable[[], float] = time.monotonic
    _failures: int = field(default=0, init=False)
    _opened_at: float | None = field(default=None, init=False)
    _probing: bool = field(default=False, init=False)

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    def admit(self) -> None:
        """Raises PlatformError(<service>_unavailable, retry_after) while open."""
        if self._opened_at is None:
            return
        remaining = self._opened_at + self.cooldown - self.clock()
        if remaining > 0 or self._probing:
            raise PlatformError(self.code, retry_after=max(remaining, 1.0))
        self._probing = True

    def succeeded(self) -> None:
        if self._opened_at is not None:
            log.info("breaker.closed", service=self.service)
        self._failures, self._opened_at, self._probing = 0, None, False

    def failed(self) -> None:
        self._failures += 1
        self._probing = False
        if self._failures >= self.threshold:
            if self._opened_at is None:
                log.warning("breaker.opened", service=self.service, failures=self._failures, cooldown=self.cooldown)
            self._opened_at = self.clock()

    def undecided(self) -> None:
        """The call says nothing about the service: it was cancelled, or failed by itself."""
        self._probing = False


@dataclass(slots=True)
class Guard:
    """Runs calls to one service. A call raises ServiceError when the service, not the request, is at fault.

    At most `places` calls are under way at once; the others wait for theirs, in order. That wait is ours and not the
    service's: no deadline counts it, and it opens no breaker.
    """

    breaker: Breaker
    attempts: int = 3
    backoff: float = 0.2
    places: int = 1000
    _places: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._places = asyncio.Semaphore(self.places)

    async def once(self, call: Callable[[], Awaitable[T]], *, deadline: float) -> T:
        """One call within `deadline` seconds. Raises PlatformError(<service>_unavailable)."""
        try:
            return await self._attempt(call, deadline)
        except ServiceError as cause:
            raise self._unavailable(cause) from cause

    async def repeatable(self, call: Callable[[], Awaitable[T]], *, deadline: float, vital: bool = False) -> T:
        """An idempotent call: tried up to `attempts` times with growing, jittered waits, each within `deadline`.

        A service that said when to come back is not asked again before. `vital`: asked past an open breaker and past
        the line of those that wait, for rare calls without which more is lost than a user's patience."""
        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(self.attempts),
                wait=wait_random_exponential(multiplier=self.backoff, max=2.0),
                retry=retry_if_exception(_may_be_repeated_now),
                reraise=True,
            ):
                with attempt:
                    return await self._attempt(call, deadline, vital=vital)
        except ServiceError as cause:
            raise self._unavailable(cause) from cause
        raise AssertionError("unreachable: the retry loop returns or raises")

    def _unavailable(self, cause: ServiceError) -> PlatformError:
        return PlatformError(self.breaker.code, retry_after=cause.retry_after or self.breaker.cooldown)

    async def _attempt(self, call: Callable[[], Awaitable[T]], deadline: float, *, vital: bool = False) -> T:
        if vital:
            return await self._bounded(call, deadline)
        async with self._places:
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
            self.breaker.succeeded()  # it answered: what it said concerns the request
            raise
        self.breaker.succeeded()
        return result


def _may_be_repeated_now(error: BaseException) -> bool:
    return isinstance(error, ServiceError) and error.retry_after is None
