"""Answers that take the same time whether an account exists or not.

Supabase Auth hashes a password or sends a mail only for an existing account, so the duration of its answer would reveal
whether there is one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog

from server.aio import Sleep, TaskSet
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

SECONDS: Final = 1.0
"""Longer than Auth usually takes to compare a password or to hand over a mail."""


class UniformDelay:
    """Delays answers to `seconds` after their requests. Close with `aclose`."""

    def __init__(self, seconds: float = SECONDS, sleep: Sleep = asyncio.sleep) -> None:
        self._seconds = seconds
        self._sleep = sleep
        self._calls = TaskSet("mail request", ignored=(PlatformError,))

    async def run(self, call: Coroutine[Any, Any, None]) -> None:
        """Return after exactly the delay; a slower call goes on in the background. Raises the failure of one that has
        ended by then."""
        task = self._calls.create(_logging_failure(call))
        await self._sleep(self._seconds)
        if task.done():
            await self._calls.result(task)

    def begin(self) -> Callable[[], Awaitable[None]]:
        """Begin a delay. Await the result before an answer whose duration must not depend on its cause."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds

        async def passed() -> None:
            await self._sleep(max(0.0, end - loop.time()))

        return passed

    async def aclose(self) -> None:
        """Stop the calls that are still going on."""
        await self._calls.aclose()


async def _logging_failure(call: Coroutine[Any, Any, None]) -> None:
    try:
        await call
    except PlatformError as error:
        log.warning("auth.mail_request_failed", code=error.code, reason=error.message)
        raise
