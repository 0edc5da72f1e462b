"""Ledger in memory: the same rules as the SQL functions, each operation one atomic change between two awaits."""

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import TypeVar

from server.ports import (
    Budget,
    Deviation,
    Findings,
    KnownCall,
    LedgerChanges,
    LedgerRow,
    ModelCall,
    Search,
    SentAttempt,
    SettledAttempt,
    TurnCharge,
)
from server.ports.schedule import (
    AWAITED,
    HOUSEKEEPING_FROM,
    HOUSEKEEPING_SEARCH,
    LATE_SEARCH_EVERY,
    LONGEST_PAUSE,
    SHORTEST_PAUSE,
)
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnStatus, Usage
from tests.fakes.charges import budget_warning, derive_days, derive_turn, over_budget
from tests.fakes.database import AttemptRow, LedgerEntry, MemoryDatabase

T = TypeVar("T")
PERIODS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class FakeLedger:
    """Implements `server.ports.Ledger` on a MemoryDatabase. `due` does not read the last day again; `search` can."""

    def __init__(self, database: MemoryDatabase) -> None:
        self.database = database

    async def _apply(self, operation: str, change: Callable[[], T]) -> T:
        await self.database.reached(operation)
        result = change()
        await self.database.answered(operation)
        return result

    async def due(self, limit: int) -> list[Search]:
        return await self._apply("due", lambda: self._due(limit))

    def _due(self, limit: int) -> list[Search]:
        now, found = self.database.clock(), []
        accounts = [(row.look_at, user_id) for user_id, row in self.database.billing.items() if row.look_at is not None]
        for look_at, user_id in sorted(accounts)[:limit]:
            if look_at > now:
                break
            attempts = self._attempts(user_id).values()
            awaited = [row for row in attempts if self._is_awaited(row)]
            self.database.billing[user_id].look_at = self._next_look(awaited, [row.ended_at for row in attempts])
            if wanted := awaited + self._unread_housekeeping(user_id, is_awaited=bool(awaited)):
                found.append(self._search(user_id, min(row.started_at for row in wanted)))
        return found

    def _attempts(self, user_id: str) -> dict[tuple[str, int], AttemptRow]:
        return {key: row for key, row in self.database.attempts.items() if row.user_id == user_id}

    def _is_awaited(self, row: AttemptRow) -> bool:
        if row.ended_at is None:
            return False
        is_recent = row.ended_at > self.database.clock() - AWAITED
        broken_off = row.outcome is not TurnStatus.COMPLETED and row.sent_at is not None
        return row.settled_at is None or (broken_off and is_recent)

    def _unread_housekeeping(self, user_id: str, *, is_awaited: bool) -> list[AttemptRow]:
        """The attempts whose log is to be read once more now: marked as read."""
        now, account = self.database.clock(), self.database.billing[user_id]
        read_at = account.housekeeping_read_at
        ended = [(row, row.ended_at) for row in self._attempts(user_id).values() if row.ended_at is not None]
        unread = [row for row, end in ended if read_at - HOUSEKEEPING_FROM < end <= now - HOUSEKEEPING_FROM]
        if not unread or (is_awaited and read_at >= now - HOUSEKEEPING_SEARCH):
            return []
        account.housekeeping_read_at = now
        return unread

    def _next_look(self, awaited: list[AttemptRow], ends: list[datetime | None]) -> datetime:
        now = self.database.clock()
        if not awaited:
            last = max((end for end in ends if end is not None), default=now - LATE_SEARCH_EVERY)
            return last + HOUSEKEEPING_SEARCH if last > now - HOUSEKEEPING_SEARCH else now + LATE_SEARCH_EVERY
        age = now - max(row.ended_at for row in awaited if row.ended_at is not None)
        return now + min(max(age / 3, SHORTEST_PAUSE), LONGEST_PAUSE)

    async def search(self, user_id: str, since: datetime) -> Search:
        return await self._apply("search", lambda: self._search(user_id, since))

    def _search(self, user_id: str, since: datetime) -> Search:
        rows = sorted(self._attempts(user_id).items(), key=lambda item: item[1].started_at)
        first = max((row.started_at for _, row in rows if row.started_at < since), default=since)
        return Search(
            user_id=user_id,
            since=since,
            now=self.database.clock(),
            key_hashes=tuple(key for key, owner in self.database.key_hashes.items() if owner == user_id),
            attempts=tuple(
                SentAttempt(
                    turn_id,
                    attempt,
                    row.sent_at or row.started_at,
                    row.ended_at,
                    row.outcome,
                    row.usage,
                    row.settled_at is not None,
                    row.stopped_at,
                )
                for (turn_id, attempt), row in rows
                if row.started_at >= first and not (row.ended_at is not None and row.sent_at is None)
            ),
            known={
                request_id: KnownCall(entry.turn_id, entry.attempt, entry.cost)
                for request_id, entry in self.database.ledger.items()
                if entry.user_id == user_id and entry.status == "settled" and entry.cost is not None
            },
        )

    async def enter(self, user_id: str, findings: Findings) -> LedgerChanges:
        return await self._apply("enter", lambda: self._enter(user_id, findings))

    def _enter(self, user_id: str, findings: Findings) -> LedgerChanges:
        if user_id not in self.database.profiles:
            raise PlatformError(ErrorCode.UNAUTHORIZED)
        turn_ids = [entry.turn_id for entry in findings.entries] + [one.turn_id for one in findings.settled]
        touched = {turn_id for turn_id in turn_ids if turn_id is not None}
        before = {turn_id: self._charge(turn_id) for turn_id in touched}
        for settled in findings.settled:
            self._settle(user_id, settled)
        for entry in findings.entries:
            known = self.database.ledger.get(entry.call.request_id)
            if known is None or known.user_id == user_id:
                has_turn = known is not None and known.turn_id is not None
                where = (known.turn_id, known.attempt) if known and has_turn else (entry.turn_id, entry.attempt)
                flag = known.flag if known else entry.flag
                self.database.ledger[entry.call.request_id] = _entry(user_id, *where, entry.call, flag)
        for row in self.database.of_user(user_id):
            derive_turn(self.database, row.turn.id)
        derive_days(self.database, user_id)
        changed = [self._charge(turn_id) for turn_id in touched if self._charge(turn_id) != before[turn_id]]
        changed.sort(key=lambda charge: self.database.turns[charge.turn_id].turn.number)
        return LedgerChanges(tuple(changed), budget_warning(self.database, user_id))

    def _settle(self, user_id: str, settled: SettledAttempt) -> None:
        row = self.database.attempts.get((settled.turn_id, settled.attempt))
        if row is None or row.user_id != user_id:
            return
        row.settled_at, row.flag = row.settled_at or self.database.clock(), settled.flag
        estimate = f"estimate:{settled.turn_id}:{settled.attempt}"
        if not settled.written_off:
            self.database.ledger.pop(estimate, None)
        elif (entry := self.database.ledger.get(estimate)) is not None:
            entry.status, entry.flag = "written_off", settled.flag

    def _charge(self, turn_id: str) -> TurnCharge:
        turn = self.database.turns[turn_id].turn
        return TurnCharge(turn_id, turn.attempt, turn.usage, turn.cost, turn.cost_status)

    async def store_budget(self, user_id: str, budget: Budget) -> bool:
        return await self._apply("store_budget", lambda: self._store_budget(user_id, budget))

    def _store_budget(self, user_id: str, budget: Budget) -> bool:
        profile = self.database.profiles.get(user_id)
        if profile is None:
            raise PlatformError(ErrorCode.UNAUTHORIZED)
        known = self.database.billing_of(user_id)
        created_at, resets_at = profile.account.created_at, budget.resets_at
        if resets_at is None:
            known.started_at = created_at
        elif known.resets_at is None:
            known.started_at = max(created_at, resets_at - _length(budget.period))
        elif known.resets_at != resets_at and known.resets_at <= self.database.clock():
            known.started_at = known.resets_at
        if known.limit != budget.limit:
            known.warned = known.warned[0], 0
        known.limit, known.period, known.resets_at = budget.limit, budget.period, resets_at
        return over_budget(self.database, user_id) is not None

    async def rows(self, user_id: str, first: date, last: date) -> list[LedgerRow]:
        return await self._apply("rows", lambda: self._rows(user_id, first, last))

    def _rows(self, user_id: str, first: date, last: date) -> list[LedgerRow]:
        found = [
            LedgerRow(
                request_id,
                entry.turn_id,
                entry.status,
                entry.outcome,
                entry.model,
                entry.usage.prompt_tokens,
                entry.usage.completion_tokens,
                entry.usage.cached_tokens,
                entry.usage.reasoning_tokens,
                entry.cost,
                entry.started_at,
                entry.flag,
            )
            for request_id, entry in self.database.ledger.items()
            if entry.user_id == user_id and first <= entry.started_at.date() <= last
        ]
        return sorted(found, key=lambda row: row.started_at)

    async def key_hashes(self, user_id: str) -> list[str]:
        return [key for key, owner in self.database.key_hashes.items() if owner == user_id]

    async def deviations(self, user_id: str) -> list[Deviation]:
        return []  # all figures are derived in the same step

    async def users(self, after: str | None, limit: int) -> Sequence[str]:
        return sorted(user_id for user_id in self.database.billing if after is None or user_id > after)[:limit]


def _entry(user_id: str, turn_id: str | None, attempt: int | None, call: ModelCall, flag: str | None) -> LedgerEntry:
    usage = Usage(
        call.prompt_tokens, call.completion_tokens, call.total_tokens, call.cached_tokens, call.reasoning_tokens, 1
    )
    return LedgerEntry(
        user_id, turn_id, attempt, "settled", call.outcome, call.model, usage, call.cost, call.started_at, flag
    )


def _length(period: str | None) -> timedelta:
    if period is None or period.endswith("mo"):
        return timedelta(days=30 * int((period or "0mo")[:-2]))
    return timedelta(seconds=int(period[:-1]) * PERIODS[period[-1]])
