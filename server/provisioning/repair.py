"""Finishes in the background what registration could not: looks for incomplete accounts and provisions them one by one.

Bounded: one user at a time, jittered waits, longer ones while a service is down or a user keeps failing."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from server.aio import Sleep, every
from server.ports import AccountStore
from server.protocol.errors import PlatformError
from server.provisioning.provisioner import Provisioner
from server.provisioning.saga import ProvisioningError
from server.resilience import Backoff, FailureBackoff

log = structlog.get_logger(__name__)

BATCH: Final = 200
AFTER_FAILURE: Final = Backoff(first=60.0, longest=3600.0)
"""How long a user who failed is left alone."""
JITTER: Final = 0.3
"""Pauses vary by this share of them, so that instances which started together do not ask together."""


@dataclass(slots=True)
class RepairLoop:
    """`run` it in a task of the application. `interval` and `breath` in seconds: between rounds, between users."""

    provisioner: Provisioner
    store: AccountStore
    config_hash: str
    interval: float = 30.0
    breath: float = 1.0
    sleep: Sleep = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    _failures: FailureBackoff[str] = field(init=False)

    def __post_init__(self) -> None:
        self._failures = FailureBackoff(AFTER_FAILURE, self.clock)

    async def run(self) -> None:
        """Until cancelled. A round cut short by a service that is down doubles the wait, up to eightfold."""
        await every(
            self.interval,
            self.round,
            name="repair",
            at_once=False,
            jitter=JITTER,
            longest=8 * self.interval,
            sleep=self.sleep,
        )

    async def round(self) -> bool:
        """Try each incomplete user once. False: a service is down, so the rest was left for later."""
        try:
            found = await self.store.incomplete(self.config_hash, BATCH)
        except PlatformError as error:
            log.warning("repair.postponed", code=error.code)
            return False
        self._failures.retain(found)
        for user_id in found:
            if self._failures.is_pausing(user_id):
                continue
            if not await self._repair(user_id):
                return False
            await self.sleep(self.breath * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - spreads load only
        return True

    async def _repair(self, user_id: str) -> bool:
        """False when it failed for a reason that others would meet too."""
        try:
            await self.provisioner.attempt(user_id)
        except PlatformError as error:
            log.warning("repair.failed", user_id=user_id, code=error.code, reason=error.message)
            if not isinstance(error, ProvisioningError) or error.permanent:
                self._failures.failed(user_id)
                return True
            return False
        self._failures.succeeded(user_id)
        log.info("repair.done", user_id=user_id)
        return True
