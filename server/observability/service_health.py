"""The doctor's findings about all services, for operators: one run for all who ask."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from server.ports import Diagnose, Diagnosis

CACHE_SECONDS: Final = 15.0


class ServiceHealth:
    """Runs `diagnose` at most once in `ttl` seconds; concurrent callers share one run."""

    def __init__(
        self,
        diagnose: Diagnose,
        *,
        ttl: float = CACHE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._diagnose = diagnose
        self._ttl = ttl
        self._clock = clock
        self._now = now
        self._run = asyncio.Lock()
        self._found: tuple[datetime, Sequence[Diagnosis]] | None = None
        self._ended_at = 0.0

    async def report(self) -> tuple[datetime, Sequence[Diagnosis]]:
        """The findings, and when their run ended."""
        async with self._run:
            if self._found is None or self._clock() - self._ended_at >= self._ttl:
                found = await self._diagnose()
                self._found, self._ended_at = (self._now(), found), self._clock()
            return self._found
