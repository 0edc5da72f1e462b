"""Calls of the database that are repeated for as long as it is unavailable."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience.retry import Backoff, retry

log = structlog.get_logger(__name__)
T = TypeVar("T")

BACKOFF: Final = Backoff(0.25, 5.0)
GIVE_UP_SECONDS: Final = 900.0


async def retry_while_unavailable(call: Callable[[], Awaitable[T]], user_id: str) -> T:
    """Repeat an idempotent call while the database is unavailable, for up to 15 minutes. Raises PlatformError."""

    def failed(error: PlatformError, pause: float) -> None:
        log.warning("session.database_unavailable", user_id=user_id, retry_in=round(pause, 3))

    return await retry(
        call,
        on=PlatformError,
        when=lambda error: error.code is ErrorCode.SUPABASE_UNAVAILABLE,
        backoff=BACKOFF,
        seconds=GIVE_UP_SECONDS,
        failed=failed,
    )
