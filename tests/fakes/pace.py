"""Limits of a user's messages on the rows in memory: per minute, and unsent ones per budget period."""

from datetime import timedelta

from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnStatus
from server.resilience.rate_limiter import rate_limited
from tests.fakes.charges import over_budget, standing
from tests.fakes.database import MemoryDatabase, TurnRow

MINUTE = timedelta(minutes=1)


def refuse_pace(database: MemoryDatabase, user_id: str, per_minute: int) -> None:
    """Raises PlatformError(rate_limited) while the user has used up the rate of a minute."""
    session = database.sessions.get(user_id)
    if per_minute <= 0 or session is None or session.paced_until is None:
        return
    pause = max(session.paced_until - database.clock(), timedelta()) + MINUTE / per_minute - MINUTE
    if pause > timedelta():
        raise rate_limited("messages", pause.total_seconds(), database.clock())


def count_message(database: MemoryDatabase, user_id: str, per_minute: int) -> None:
    if per_minute > 0:
        session, now = database.sessions[user_id], database.clock()
        session.paced_until = max(session.paced_until or now, now) + MINUTE / per_minute


def refuse_unsent(database: MemoryDatabase, user_id: str, limit: int, but: str | None = None) -> None:
    """Raises PlatformError(budget_exceeded) for a user over budget with the maximum of unsent turns in this period."""
    error, found = over_budget(database, user_id), standing(database, user_id)
    if error is None or found is None:
        return
    unsent = [
        row
        for row in database.of_user(user_id)
        if row.turn.status is TurnStatus.UNSENT
        and row.turn.id != but
        and row.turn.finished_at is not None
        and (found.started_at is None or row.turn.finished_at >= found.started_at)
    ]
    if len(unsent) >= limit:
        raise PlatformError(error.code, error.message, members=error.budget())


def taken_while_stopping(rows: list[TurnRow], running: TurnRow | None) -> int:
    """The messages that were accepted since the running turn was asked to stop."""
    return 0 if running is None else sum(row.came_while_stopping == running.turn.id for row in rows)


def stopping(running: TurnRow | None) -> str | None:
    """The running turn's id, once it was asked to stop."""
    return running.turn.id if running is not None and running.turn.cancel_requested_at is not None else None
