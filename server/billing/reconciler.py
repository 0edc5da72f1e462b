"""Finds in the gateway's log what users' calls really cost, enters it in the ledger, and tells whom it concerns.

When to look for whom is kept in the database: any instance takes what is due, so nothing is forgotten by a restart, and
after an outage of either side the search goes on where it stood.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from server.aio import every
from server.billing.attribution import attribute
from server.billing.budgets import Budgets
from server.ports import Announcement, BillingGateway, BudgetWarning, Ledger, Search, TurnCharge
from server.ports.schedule import LONGEST_POLL, POLL, READ_MARGIN
from server.protocol.errors import PlatformError
from server.protocol.shapes import wire_money

log = structlog.get_logger(__name__)

AT_ONCE: Final = 4
BATCH: Final = 20

Tell = Callable[[str, Announcement], None]
"""Tells a user's connections; must not raise."""


class Reconciler:
    """`run` it in a task of the application. `now` is this process's clock."""

    def __init__(
        self,
        ledger: Ledger,
        billing: BillingGateway,
        budgets: Budgets,
        tell: Tell = lambda user_id, news: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._billing = billing
        self._budgets = budgets
        self._tell = tell
        self._now = now
        self._places = asyncio.Semaphore(AT_ONCE)
        self._gateway_ahead = 0.0  # seconds, as last heard

    async def run(self) -> None:
        """Until cancelled. While a service is unavailable, poll ever more seldom."""
        await every(POLL.total_seconds(), self.round, name="settlement", longest=LONGEST_POLL.total_seconds())

    async def round(self) -> bool:
        """Look for what is due now. False: a service was away for some of it, and it will come again."""
        asked = self._now()
        try:
            due = await self._ledger.due(BATCH)
        except PlatformError as error:
            log.warning("settlement.postponed", code=error.code)
            return False
        received = self._now()
        return all(await asyncio.gather(*(self._settle_quietly(search, asked, received) for search in due)))

    async def settle(self, search: Search, asked: datetime, received: datetime) -> None:
        """Look for one user's calls. The search was `asked` for and `received` at these times, by our clock; at any
        moment between them the database may have told its own. Raises PlatformError."""
        database_ahead = (search.now - received).total_seconds()
        since = search.since + timedelta(seconds=self._gateway_ahead - database_ahead)
        until = self._now() + timedelta(seconds=self._gateway_ahead) + READ_MARGIN
        spent = await self._billing.spend(search.key_hashes, since - READ_MARGIN, until)
        self._gateway_ahead = spent.clock
        findings = attribute(search, spent, database_ahead, (received - asked).total_seconds())
        for entry in findings.entries:
            if entry.flag is not None:
                log.warning("settlement.flagged", user_id=search.user_id, turn_id=entry.turn_id, flag=entry.flag)
        for settled in findings.settled:
            if settled.flag is not None:
                log.warning("settlement.unsure", user_id=search.user_id, turn_id=settled.turn_id, flag=settled.flag)
        settlement = await self._ledger.settle(search.user_id, findings)
        for turn in settlement.turns:
            self._tell(search.user_id, _settled(turn))
        if settlement.warning is not None:
            self._tell(search.user_id, _warning(settlement.warning))
        await self._budgets.refresh_if_old(search.user_id)

    async def _settle_quietly(self, search: Search, asked: datetime, received: datetime) -> bool:
        async with self._places:
            try:
                await self.settle(search, asked, received)
            except PlatformError as error:
                log.warning("settlement.postponed", user_id=search.user_id, code=error.code)
                return False
            except Exception:
                log.exception("settlement.failed", user_id=search.user_id)
        return True


def _settled(turn: TurnCharge) -> Announcement:
    fields = {"cost": wire_money(turn.cost), "cost_status": turn.cost_status, "usage": turn.usage and turn.usage.wire()}
    return Announcement("usage.settled", fields, turn.turn_id, turn.attempt)


def _warning(warning: BudgetWarning) -> Announcement:
    fields = {"spent": wire_money(warning.spent), "limit": wire_money(warning.limit), "level": warning.level}
    return Announcement("budget.warning", fields)
