"""Waiting until something works again: a database that is unavailable, and what crashes whoever runs a user's turns."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)
T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE, _GIVE_UP = 0.25, 5.0, 900.0
_FIRST_REST, _LONGEST_REST = 1.0, 30.0


async def patiently(call: Callable[[], Awaitable[T]], user_id: str) -> T:
    """Repeat an idempotent call while the database is away, for up to 15 minutes. Raises PlatformError."""
    clock = asyncio.get_running_loop().time
    pause, until = _FIRST_PAUSE, clock() + _GIVE_UP
    while True:
        try:
            return await call()
        except PlatformError as error:
            if error.code is not ErrorCode.SUPABASE_UNAVAILABLE or clock() > until:
                raise
            log.warning("session.database_away", user_id=user_id, retry_in=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


class CrashBackoff:
    """How long a user's turns rest after a crash of what runs them: twice as long each time, until a turn ends well.

    The next owner begins with the same rows, so what crashed once is likely to crash again, at Letta's expense.
    """

    def __init__(self) -> None:
        self._rests: dict[str, float] = {}

    def crashed(self, user_id: str) -> float:
        """How long to rest now, in seconds."""
        rest = self._rests.get(user_id, _FIRST_REST)
        self._rests[user_id] = min(rest * 2, _LONGEST_REST)
        return rest

    def recovered(self, user_id: str) -> None:
        self._rests.pop(user_id, None)
