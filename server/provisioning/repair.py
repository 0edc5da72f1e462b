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

log = structlog.get_logger(__name__)

BATCH: Final = 200
FIRST_REST_SECONDS: Final = 60.0
LONGEST_REST_SECONDS: Final = 3600.0
JITTER: Final = 0.3
"""Pauses vary by this share of them, so that instances which started together do not ask together."""


@dataclass(slots=True)
class _Rest:
    """How long a user who failed is left alone."""

    seconds: float
    until: float


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
    _rests: dict[str, _Rest] = field(default_factory=dict, init=False)

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
        self._rests = {user_id: rest for user_id, rest in self._rests.items() if user_id in found}
        for user_id in found:
            rest = self._rests.get(user_id)
            if rest is not None and rest.until > self.clock():
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
                self._let_rest(user_id)
                return True
            return False
        self._rests.pop(user_id, None)
        log.info("repair.done", user_id=user_id)
        return True

    def _let_rest(self, user_id: str) -> None:
        before = self._rests.get(user_id)
        seconds = min(before.seconds * 2, LONGEST_REST_SECONDS) if before else FIRST_REST_SECONDS
        self._rests[user_id] = _Rest(seconds, self.clock() + seconds)
