"""Waiting for the database to come back: what is to be stored is worth more than the time it takes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)
T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE, _GIVE_UP = 0.25, 5.0, 900.0


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
