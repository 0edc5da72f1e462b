"""SessionStore in memory: the same rules as the SQL functions, each operation one atomic change between two awaits."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from server.ports import Accepted, Claim, FencedError, Lease, LogMark, NewTurn, OwnedWork, Started, TurnEnd
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Allowance
from server.protocol.shapes import Message, Turn, TurnStatus
from tests.fakes.charges import leave_unsent, over_budget
from tests.fakes.database import LEASE, AttemptRow, MemoryDatabase, SessionRow, TurnRow, mark
from tests.fakes.ending import end_attempt
from tests.fakes.pace import count_message, refuse_pace, refuse_unsent, stopping, taken_while_stopping

T = TypeVar("T")
TICKET_GRACE = timedelta(minutes=5)


class FakeSessionStore:
    """Implements `server.ports.SessionStore` on a MemoryDatabase."""

    def __init__(self, database: MemoryDatabase | None = None) -> None:
        self.database = database or MemoryDatabase()

    async def _apply(self, operation: str, change: Callable[[], T]) -> T:
        await self.database.reached(operation)
        result = change()
        await self.database.answered(operation)
        return result

    # Sessions

    async def claim(self, user_id: str, owner: str) -> Claim | None:
        return await self._apply("claim", lambda: self._claim(user_id, owner))

    def _claim(self, user_id: str, owner: str) -> Claim | None:
        self.database.profile(user_id)
        lease = self._take(user_id, owner)
        if lease is None:
            return None
        running = self.database.running(user_id)
        return Claim(
            lease=lease,
            running=self.database.shown(running) if running else None,
            forgotten=self.database.forgotten(running.turn) if running else (),
            queued=tuple(map(self.database.shown, self.database.waiting(user_id))),
            running_for=self._running_for(running),
            mark=self._mark(lease),
        )

    def _mark(self, lease: Lease) -> LogMark | None:
        released_at = self.database.sessions[lease.user_id].released_at
        return released_at[1] if released_at is not None and released_at[0] == lease.fence - 1 else None

    def _running_for(self, running: TurnRow | None) -> float:
        begun = running.turn.started_at if running else None
        return 0.0 if begun is None else (self.database.clock() - begun).total_seconds()

    def _take(self, user_id: str, owner: str) -> Lease | None:
        """Claim a session without an owner or with an expired lease, or renew the owner's own. None: another has it."""
        now = self.database.clock()
        session = self.database.sessions.get(user_id)
        if session is None:
            session = self.database.sessions[user_id] = SessionRow(None, 0, now)
        held = session.owner is not None and session.heartbeat_at > now - LEASE
        if held and session.owner != owner:
            return None
        if not held:
            session.owner, session.fence = owner, session.fence + 1
        else:
            session.released_at = None  # the owner may have appended to the log since it was given the mark
        session.heartbeat_at = now
        return Lease(user_id, owner, session.fence)

    def _check(self, lease: Lease) -> None:
        session = self.database.sessions.get(lease.user_id)
        if session is None or (session.owner, session.fence) != (lease.owner, lease.fence):
            raise FencedError(lease.user_id)

    async def renew(self, owner: str) -> dict[str, int]:
        return await self._apply("renew", lambda: self._renew(owner))

    def _renew(self, owner: str) -> dict[str, int]:
        held = {user_id: row for user_id, row in self.database.sessions.items() if row.owner == owner}
        for row in held.values():
            row.heartbeat_at = self.database.clock()
        return {user_id: row.fence for user_id, row in held.items()}

    async def owned_work(self, owner: str) -> list[OwnedWork]:
        return await self._apply("owned_work", lambda: self._owned_work(owner))

    def _owned_work(self, owner: str) -> list[OwnedWork]:
        found = []
        for user_id in [user_id for user_id, session in self.database.sessions.items() if session.owner == owner]:
            waiting = frozenset(row.turn.id for row in self.database.waiting(user_id))
            running = self.database.running(user_id)
            stopping = running is not None and running.turn.cancel_requested_at is not None
            if waiting or stopping:
                found.append(OwnedWork(user_id, waiting, running.turn.id if running and stopping else None))
        return found

    async def release(self, lease: Lease, mark: LogMark | None = None, *, unless_open: bool = False) -> bool:
        return await self._apply("release", lambda: self._release(lease, mark, unless_open))

    def _release(self, lease: Lease, mark: LogMark | None, unless_open: bool) -> bool:
        session = self.database.sessions.get(lease.user_id)
        if session is None or (session.owner, session.fence) != (lease.owner, lease.fence):
            return True
        if unless_open and (self.database.running(lease.user_id) or self.database.waiting(lease.user_id)):
            return False
        session.owner = None
        session.released_at = None if mark is None else (lease.fence, mark)
        return True

    async def unowned_work(self, limit: int) -> list[str]:
        return await self._apply("unowned_work", lambda: self._unowned_work(limit))

    def _unowned_work(self, limit: int) -> list[str]:
        now = self.database.clock()
        found: list[str] = []
        for row in sorted(self.database.turns.values(), key=lambda row: row.turn.created_at):
            user_id = row.turn.user_id
            session = self.database.sessions.get(user_id)
            held = session is not None and session.owner is not None and session.heartbeat_at > now - LEASE
            if row.open and not held and user_id not in found:
                found.append(user_id)
        return found[:limit]

    # Accepting

    async def accept(
        self, new: NewTurn, owner: str, *, start: bool, allowance: Allowance, overloaded: bool = False
    ) -> Accepted:
        return await self._apply("accept", lambda: self._accept(new, owner, start, allowance, overloaded))

    def _accept(self, new: NewTurn, owner: str, start: bool, allowance: Allowance, overloaded: bool) -> Accepted:
        self._refuse_closed_account(new.user_id)
        rows = self.database.of_user(new.user_id)
        known = next((row for row in rows if row.turn.client_message_id == new.client_message_id), None)
        if known is not None:
            if known.content_hash != new.content_hash:
                raise PlatformError(ErrorCode.ID_CONFLICT)
            return self._admitted(known, owner, start, duplicate=True)
        if overloaded:
            raise PlatformError(ErrorCode.OVERLOADED)
        refuse_pace(self.database, new.user_id, allowance.per_minute)
        waiting, running = self.database.waiting(new.user_id), self.database.running(new.user_id)
        if new.on_busy == "reject" and (waiting or running):
            raise PlatformError(ErrorCode.BUSY)
        refuse_unsent(self.database, new.user_id, allowance.unsent)
        interrupting = new.on_busy == "interrupt" and over_budget(self.database, new.user_id) is None
        if (taken_while_stopping(rows, running) if interrupting else len(waiting)) >= allowance.waiting:
            raise PlatformError(ErrorCode.QUEUE_FULL)
        came_while_stopping = stopping(running)
        cancelled = [self._cancel_waiting(row) for row in waiting] if interrupting else []
        if interrupting and running is not None:
            self._mark_cancel(running)
        row = self._insert(new, rows[-1].turn.number + 1 if rows else 1)
        row.came_while_stopping = came_while_stopping
        accepted = self._admitted(row, owner, start, duplicate=False)
        count_message(self.database, new.user_id, allowance.per_minute)
        interrupted = self.database.shown(running) if interrupting and running else None
        return replace(accepted, cancelled=tuple(cancelled), interrupted=interrupted)

    def _refuse_closed_account(self, user_id: str) -> None:
        self.database.profile(user_id).account.refuse_closed()

    def _insert(self, new: NewTurn, number: int) -> TurnRow:
        now, turn_id = self.database.clock(), str(uuid.uuid4())
        message = Message(str(uuid.uuid4()), turn_id, "user", new.content, "complete", None, None, now, 2 * number)
        turn = Turn(
            id=turn_id,
            status=TurnStatus.QUEUED,
            attempt=1,
            client_message_id=new.client_message_id,
            user_message=message,
            message=None,
            usage=None,
            cost=None,
            cost_status=None,
            error=None,
            queue_position=None,
            created_at=now,
            started_at=None,
            finished_at=None,
            user_id=new.user_id,
            number=number,
        )
        row = self.database.turns[turn_id] = TurnRow(turn, new.content_hash)
        self.database.count_message(new.user_id)
        return row

    def _admitted(self, row: TurnRow, owner: str, start: bool, *, duplicate: bool) -> Accepted:
        """Claim the session if possible, and start the turn if it is the next one."""
        user_id = row.turn.user_id
        lease = self._take(user_id, owner)
        waiting = self.database.waiting(user_id)
        first = self.database.running(user_id) is None and bool(waiting) and waiting[0] is row
        error = None if duplicate else over_budget(self.database, user_id)
        if error is not None:
            leave_unsent(self.database, row, error)
        elif start and lease is not None and first:
            self._start_row(row)
        started = lease is not None and row.turn.status is TurnStatus.RUNNING
        forgotten = self.database.forgotten(row.turn) if started else ()
        mark = None if lease is None else self._mark(lease)
        return Accepted(self.database.shown(row), duplicate, started, lease, forgotten, mark=mark)

    async def retry(
        self, user_id: str, turn_id: str, owner: str, *, start: bool, allowance: Allowance, overloaded: bool = False
    ) -> Accepted:
        return await self._apply("retry", lambda: self._retry(user_id, turn_id, owner, start, allowance, overloaded))

    def _retry(
        self, user_id: str, turn_id: str, owner: str, start: bool, allowance: Allowance, overloaded: bool
    ) -> Accepted:
        self._refuse_closed_account(user_id)
        row = self._own(user_id, turn_id)
        if row.open:
            return self._admitted(row, owner, start, duplicate=True)
        if row.turn.status is TurnStatus.COMPLETED:
            raise PlatformError(ErrorCode.NOT_RETRYABLE)
        if overloaded:
            raise PlatformError(ErrorCode.OVERLOADED)
        refuse_pace(self.database, user_id, allowance.per_minute)
        refuse_unsent(self.database, user_id, allowance.unsent, but=turn_id)
        if len(self.database.waiting(user_id)) >= allowance.waiting:
            raise PlatformError(ErrorCode.QUEUE_FULL)
        row.turn = mark(
            replace(
                row.turn,
                status=TurnStatus.QUEUED,
                attempt=row.turn.attempt + 1,
                error=None,
                finished_at=None,
                cancel_requested_at=None,
            ),
            "complete",
        )
        accepted = self._admitted(row, owner, start, duplicate=False)
        count_message(self.database, user_id, allowance.per_minute)
        return accepted

    # Running

    async def start(self, lease: Lease) -> Started | None:
        return await self._apply("start", lambda: self._start(lease))

    def _start(self, lease: Lease) -> Started | None:
        self._check(lease)
        row = self.database.running(lease.user_id)
        if row is None:
            row = next(iter(self.database.waiting(lease.user_id)), None)
            if row is None:
                return None
            error = over_budget(self.database, lease.user_id)
            if error is None:
                self._start_row(row)
            else:
                leave_unsent(self.database, row, error)
        return Started(self.database.shown(row), self.database.forgotten(row.turn))

    def _start_row(self, row: TurnRow) -> None:
        if row.turn.run_id is not None:
            row.past_runs.add(row.turn.run_id)
        row.carried_by = None
        row.turn = replace(
            row.turn,
            status=TurnStatus.RUNNING,
            run_id=None,
            cancel_requested_at=None,
            started_at=self.database.clock(),
        )
        key = row.turn.id, row.turn.attempt
        self.database.attempts[key] = AttemptRow(row.turn.user_id, self.database.clock())

    async def set_run(self, lease: Lease, turn_id: str, attempt: int, run_id: str) -> None:
        await self._apply("set_run", lambda: self._set_run(lease, turn_id, attempt, run_id))

    def _set_run(self, lease: Lease, turn_id: str, attempt: int, run_id: str) -> None:
        self._check(lease)
        row = self._own(lease.user_id, turn_id)
        if row.turn.status is TurnStatus.RUNNING and row.turn.attempt == attempt:
            row.turn = replace(row.turn, run_id=run_id)

    async def finish(self, lease: Lease, end: TurnEnd) -> Turn:
        return await self._apply("finish", lambda: self._finish(lease, end))

    def _finish(self, lease: Lease, end: TurnEnd) -> Turn:
        self._check(lease)
        row = self._own(lease.user_id, end.turn_id)
        if row.open and row.turn.attempt == end.attempt:
            end_attempt(self.database, row, end)
        return self.database.shown(row)

    # Cancelling and reading

    async def request_cancel(self, user_id: str, turn_id: str | None) -> Turn:
        return await self._apply("request_cancel", lambda: self._request_cancel(user_id, turn_id))

    def _request_cancel(self, user_id: str, turn_id: str | None) -> Turn:
        if turn_id is not None:
            row = self._own(user_id, turn_id)
        else:
            first = self.database.running(user_id) or next(iter(self.database.waiting(user_id)), None)
            if first is None:
                raise PlatformError(ErrorCode.NOT_FOUND)
            row = first
        if row.turn.status is TurnStatus.QUEUED:
            return self._cancel_waiting(row)
        if row.turn.status is TurnStatus.RUNNING:
            self._mark_cancel(row)
        return self.database.shown(row)

    def _cancel_waiting(self, row: TurnRow) -> Turn:
        self._mark_cancel(row)
        row.turn = replace(row.turn, status=TurnStatus.CANCELLED, finished_at=self.database.clock())
        return self.database.shown(row)

    def _mark_cancel(self, row: TurnRow) -> None:
        moment = row.turn.cancel_requested_at or self.database.clock()
        row.turn = replace(row.turn, cancel_requested_at=moment)

    def _own(self, user_id: str, turn_id: str) -> TurnRow:
        row = self.database.turns.get(turn_id)
        if row is None or row.is_deleted or row.turn.user_id != user_id:
            raise PlatformError(ErrorCode.NOT_FOUND)
        return row

    async def open_turns(self, user_id: str) -> tuple[Turn | None, tuple[Turn, ...]]:
        return await self._apply("open_turns", lambda: self._open_turns(user_id))

    def _open_turns(self, user_id: str) -> tuple[Turn | None, tuple[Turn, ...]]:
        running = self.database.running(user_id)
        waiting = tuple(map(self.database.shown, self.database.waiting(user_id)))
        return self.database.shown(running) if running else None, waiting

    async def turn(self, user_id: str, turn_id: str) -> Turn | None:
        return await self._apply("turn", lambda: self._turn(user_id, turn_id))

    def _turn(self, user_id: str, turn_id: str) -> Turn | None:
        row = self.database.turns.get(turn_id)
        if row is None or row.is_deleted or row.turn.user_id != user_id:
            return None
        return self.database.shown(row)

    async def turn_by_run(self, user_id: str, run_id: str) -> Turn | None:
        return await self._apply("turn_by_run", lambda: self._turn_by_run(user_id, run_id))

    def _turn_by_run(self, user_id: str, run_id: str) -> Turn | None:
        for row in self.database.of_user(user_id):
            if row.turn.run_id == run_id or run_id in row.past_runs:
                return self.database.shown(row)
        return None

    async def closed_accounts(self, user_ids: Sequence[str]) -> list[str]:
        return await self._apply("closed_accounts", lambda: self._closed_accounts(user_ids))

    def _closed_accounts(self, user_ids: Sequence[str]) -> list[str]:
        profiles = self.database.profiles
        return [one for one in user_ids if one not in profiles or profiles[one].account.agent_status.closed]

    async def redeem_ticket(self, ticket_id: str, expires_at: datetime) -> bool:
        return await self._apply("redeem_ticket", lambda: self._redeem_ticket(ticket_id, expires_at))

    def _redeem_ticket(self, ticket_id: str, expires_at: datetime) -> bool:
        horizon = self.database.clock() - TICKET_GRACE
        tickets = {key: moment for key, moment in self.database.tickets.items() if moment >= horizon}
        self.database.tickets = tickets
        if ticket_id in tickets or expires_at < horizon:
            return False
        tickets[ticket_id] = expires_at
        return True
