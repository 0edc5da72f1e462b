"""Keeps users' budgets up to date: limits and periods are refreshed from LiteLLM, spending comes from the ledger.

The database decides whether a message may be sent, when it accepts it, by the limits that are stored here.
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
    """`clock` in seconds, monotonic. No method raises: after a failed refresh the stored budget stays in force."""

    def __init__(self, ledger: Ledger, billing: BillingGateway, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._billing = billing
        self._clock = clock
        self._refreshed: LRUCache[str, float] = LRUCache(CACHED)  # when; the permitted age depends on the caller

    async def refresh_if_old(self, user_id: str, age: timedelta = BUDGET_FRESH) -> bool:
        """Refresh the budget from LiteLLM, unless this instance did so within `age`. Returns True if it was refreshed
        and is not used up."""
        refreshed = self._refreshed.get(user_id)
        if refreshed is not None and self._clock() - refreshed < age.total_seconds():
            return False
        self._refreshed[user_id] = self._clock()
        return await self._refresh(user_id)

    async def may_send_after_refresh(self, user_id: str) -> bool:
        """Whether a message that was refused may be sent now, because LiteLLM has a higher limit or another period."""
        return await self.refresh_if_old(user_id, BUDGET_REFUSED)

    async def _refresh(self, user_id: str) -> bool:
        try:
            async with asyncio.timeout(BUDGET_TIMEOUT.total_seconds()):
                budget = await self._billing.budget(user_id)
                return budget is not None and not await self._ledger.store_budget(user_id, budget)
        except (PlatformError, TimeoutError) as error:
            reason = error.code if isinstance(error, PlatformError) else "timeout"
            log.warning("budget.not_refreshed", user_id=user_id, reason=reason)
            return False
