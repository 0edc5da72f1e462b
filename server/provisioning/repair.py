"""Repairs accounts in the background: polls for incomplete ones and provisions them one by one.

Bounded: one user at a time, jittered pauses, backoff while a service is unavailable or a user keeps failing."""

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
"""Backoff of a user whose provisioning failed."""
JITTER: Final = 0.3
"""Relative jitter of each pause, so that instances that started together do not poll together."""


@dataclass(slots=True)
class RepairLoop:
    """`run` it in a task of the application. `interval` and `user_pause` in seconds: between rounds, between users."""

    provisioner: Provisioner
    store: AccountStore
    config_hash: str
    interval: float = 30.0
    user_pause: float = 1.0
    sleep: Sleep = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    _failures: FailureBackoff[str] = field(init=False)

    def __post_init__(self) -> None:
        self._failures = FailureBackoff(AFTER_FAILURE, self.clock)

    async def run(self) -> None:
        """Run until cancelled. A round that an unavailable service ended doubles the interval, up to eightfold."""
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
        """Try each incomplete user once. Returns False if a service is unavailable: the remaining users were not
        tried."""
        try:
            found = await self.store.incomplete(self.config_hash, BATCH)
            for user_id in await self.store.outdated_customers(BATCH):
                await self.provisioner.sync_address(user_id)
        except PlatformError as error:
            log.warning("repair.postponed", code=error.code)
            return False
        self._failures.retain(found)
        for user_id in found:
            if self._failures.is_pausing(user_id):
                continue
            if not await self._repair(user_id):
                return False
            await self.sleep(self.user_pause * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - spreads load only
        return True

    async def _repair(self, user_id: str) -> bool:
        """Returns False if it failed for a reason that concerns all users."""
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
