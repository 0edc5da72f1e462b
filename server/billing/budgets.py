"""What users may still spend: LiteLLM is asked for limits and periods now and then, our ledger knows what was spent.

Whether a message may be sent is decided by the database, from what is remembered here, as it is accepted.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog
from cachetools import LRUCache

from server.ports import BillingGateway, Ledger
from server.ports.schedule import BUDGET_FRESH, BUDGET_REFUSED, BUDGET_TIMEOUT
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

CACHED: Final = 10_000


class Budgets:
    """`clock` in seconds, monotonic. No method raises: the last budget that was heard of stands."""

    def __init__(self, ledger: Ledger, billing: BillingGateway, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._billing = billing
        self._clock = clock
        self._asked: LRUCache[str, float] = LRUCache(CACHED)  # when; how old it may be depends on who asks

    async def refresh_if_old(self, user_id: str, age: timedelta = BUDGET_FRESH) -> bool:
        """Ask LiteLLM, unless this instance did so within `age`. Whether there is known to be room now."""
        asked = self._asked.get(user_id)
        if asked is not None and self._clock() - asked < age.total_seconds():
            return False
        self._asked[user_id] = self._clock()
        return await self._refresh(user_id)

    async def may_send_after_all(self, user_id: str) -> bool:
        """Whether a message that was refused may be sent: LiteLLM knows of a higher limit or another period."""
        return await self.refresh_if_old(user_id, BUDGET_REFUSED)

    async def _refresh(self, user_id: str) -> bool:
        try:
            async with asyncio.timeout(BUDGET_TIMEOUT.total_seconds()):
                budget = await self._billing.budget(user_id)
                return budget is not None and not await self._ledger.remember_budget(user_id, budget)
        except (PlatformError, TimeoutError) as error:
            reason = error.code if isinstance(error, PlatformError) else "no answer in time"
            log.warning("budget.unknown", user_id=user_id, reason=reason)
            return False
