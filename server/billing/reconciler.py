"""Reconciles the ledger with the gateway's spend log: enters what users' calls cost, and publishes changed charges.

The database stores when each user's next search is due. Any instance claims due searches, so a restart loses none, and
after an outage of LiteLLM or the database the search continues where it ended.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from cachetools import LRUCache

from server.aio import every
from server.billing.attribution import attribute
from server.billing.budgets import Budgets
from server.ports import Announcement, BillingGateway, BudgetWarning, Findings, Ledger, Search, TurnCharge
from server.ports.schedule import CLOCK_DOUBT, LONGEST_POLL, POLL, READ_MARGIN
from server.protocol.errors import PlatformError
from server.protocol.shapes import wire_money

log = structlog.get_logger(__name__)

CONCURRENT_SEARCHES: Final = 4
BATCH: Final = 20
CACHED: Final = 10_000

Announce = Callable[[str, Announcement], None]
"""Publishes to a user's connections: user id, announcement. Must not raise."""


class Reconciler:
    """`run` it in a task of the application. `now` is this process's clock."""

    def __init__(
        self,
        ledger: Ledger,
        billing: BillingGateway,
        budgets: Budgets,
        announce: Announce = lambda user_id, announcement: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._billing = billing
        self._budgets = budgets
        self._announce = announce
        self._now = now
        self._slots = asyncio.Semaphore(CONCURRENT_SEARCHES)
        self._gateway_ahead = 0.0  # seconds, as last measured
        self._gateway_error = READ_MARGIN  # of that measurement
        self._newest_end: LRUCache[str, datetime | None] = LRUCache(CACHED)  # of a user's attempts, at the last entry

    async def run(self) -> None:
        """Run until cancelled. While a service is unavailable, the polling interval grows to `LONGEST_POLL`."""
        await every(POLL.total_seconds(), self.round, name="billing", longest=LONGEST_POLL.total_seconds())

    async def round(self) -> bool:
        """Perform the searches that are due. Returns False if a service was unavailable for some, which are due again
        later."""
        asked = self._now()
        try:
            due = await self._ledger.due(BATCH)
        except PlatformError as error:
            log.warning("billing.postponed", code=error.code)
            return False
        received = self._now()
        return all(await asyncio.gather(*(self._try_to_reconcile(search, asked, received) for search in due)))

    async def reconcile(self, search: Search, asked: datetime, received: datetime) -> None:
        """Reconcile one user. The search was `asked` for and `received` at these times, by our clock; the database read
        its own clock at a moment between them. Raises PlatformError."""
        database_ahead = (search.now - received).total_seconds()
        since = search.since + timedelta(seconds=self._gateway_ahead - database_ahead)
        until = self._now() + timedelta(seconds=self._gateway_ahead) + READ_MARGIN
        margin = min(READ_MARGIN, self._gateway_error + (received - asked) + CLOCK_DOUBT)
        spent = await self._billing.spend(search.key_hashes, since - margin, until)
        self._gateway_ahead, self._gateway_error = spent.clock, timedelta(seconds=spent.clock_error)
        findings = attribute(search, spent, database_ahead, (received - asked).total_seconds())
        for entry in findings.entries:
            if entry.flag is not None:
                log.warning("billing.call_flagged", user_id=search.user_id, turn_id=entry.turn_id, flag=entry.flag)
        for settled in findings.settled:
            if settled.flag is not None:
                log.warning("billing.turn_flagged", user_id=search.user_id, turn_id=settled.turn_id, flag=settled.flag)
        await self._enter(search, findings)
        await self._budgets.refresh_if_old(search.user_id)

    async def _enter(self, search: Search, findings: Findings) -> None:
        """Enter what was found; if nothing was, only after the end of an attempt, since its estimate may have reached a
        level of warning."""
        user_id = search.user_id
        newest = max((one.ended_at for one in search.attempts if one.ended_at is not None), default=None)
        if not (findings.entries or findings.settled) and self._newest_end.get(user_id) == newest:
            return
        changes = await self._ledger.enter(user_id, findings)
        self._newest_end[user_id] = newest
        for turn in changes.turns:
            self._announce(user_id, _settled(turn))
        if changes.warning is not None:
            self._announce(user_id, _warning(changes.warning))

    async def _try_to_reconcile(self, search: Search, asked: datetime, received: datetime) -> bool:
        async with self._slots:
            try:
                await self.reconcile(search, asked, received)
            except PlatformError as error:
                log.warning("billing.postponed", user_id=search.user_id, code=error.code)
                return False
            except Exception:
                log.exception("billing.failed", user_id=search.user_id)
        return True


def _settled(turn: TurnCharge) -> Announcement:
    fields = {"cost": wire_money(turn.cost), "cost_status": turn.cost_status, "usage": turn.usage and turn.usage.wire()}
    return Announcement("usage.settled", fields, turn.turn_id, turn.attempt)


def _warning(warning: BudgetWarning) -> Announcement:
    fields = {"spent": wire_money(warning.spent), "limit": wire_money(warning.limit), "level": warning.level}
    return Announcement("budget.warning", fields)
