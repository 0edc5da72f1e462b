"""Applies the end of an attempt to the rows in memory: reply, estimate, and turns carried along."""

import uuid
from dataclasses import replace
from datetime import timedelta

from server.ports import TurnEnd
from server.ports.schedule import FIRST_SEARCH
from server.protocol.codes import ErrorCode
from server.protocol.shapes import Message, MessageStatus, TurnError, TurnStatus
from tests.fakes.charges import budget_error, derive_days, derive_turn
from tests.fakes.database import LedgerEntry, MemoryDatabase, TurnRow, mark


def end_attempt(database: MemoryDatabase, row: TurnRow, end: TurnEnd) -> None:
    """End the open attempt of a turn. An unsent one gets no reply."""
    error = end.error
    if error is not None and error.code is ErrorCode.BUDGET_EXCEEDED:
        error = budget_error(database, row.turn.user_id, error)
    if end.status is TurnStatus.UNSENT:
        row.turn = mark(replace(row.turn, started_at=None), "unsent")
    else:
        _reply(database, row, end)
    row.turn = replace(row.turn, status=end.status, error=error, reason=end.reason, finished_at=database.clock())
    _record_attempt(database, row, end, error)
    _carry(database, row, end.carried)


def _record_attempt(database: MemoryDatabase, row: TurnRow, end: TurnEnd, error: TurnError | None) -> None:
    """Store how the attempt ended and its estimated cost."""
    turn, now = row.turn, database.clock()
    attempt = database.attempts.get((turn.id, turn.attempt))
    if attempt is not None:
        outcome = TurnStatus.COMPLETED if end.run_completed else end.status
        attempt.ended_at, attempt.outcome, attempt.usage = now, outcome, end.usage
        timed_out = error is not None and error.code in (ErrorCode.TURN_TIMEOUT, ErrorCode.LETTA_UNAVAILABLE)
        attempt.stopped_at = turn.cancel_requested_at or (now if timed_out else None)
        if end.sent_after is None:
            attempt.settled_at = now
        else:
            attempt.sent_at = attempt.started_at + timedelta(seconds=end.sent_after)
        if end.estimate is not None and end.usage is not None:
            database.ledger[f"estimate:{turn.id}:{turn.attempt}"] = LedgerEntry(
                turn.user_id,
                turn.id,
                turn.attempt,
                "estimated",
                "success",
                end.estimate.model,
                replace(end.usage, total_tokens=end.usage.prompt_tokens + end.usage.completion_tokens),
                end.estimate.cost,
                attempt.sent_at or attempt.started_at,
            )
    derive_turn(database, turn.id)
    derive_days(database, turn.user_id)
    soon = now + FIRST_SEARCH
    account = database.billing_of(turn.user_id)
    account.look_at = min(account.look_at or soon, soon)


def _reply(database: MemoryDatabase, row: TurnRow, end: TurnEnd) -> None:
    """Store the reply; an attempt without text leaves the partial text of an earlier attempt, and its steps."""
    completed = end.status is TurnStatus.COMPLETED
    earlier = row.turn.message is not None and row.turn.message.content
    if end.text or completed or (end.steps and not earlier):
        status: MessageStatus = "complete" if completed else "partial"
        message = row.turn.message or _new_reply(database, row)
        row.steps = end.steps
        row.turn = replace(row.turn, message=replace(message, content=end.text, status=status))


def _new_reply(database: MemoryDatabase, row: TurnRow) -> Message:
    turn = row.turn
    database.count_message(turn.user_id)
    position = 2 * turn.number + 1
    return Message(str(uuid.uuid4()), turn.id, "assistant", "", "partial", None, None, database.clock(), position)


def _carry(database: MemoryDatabase, row: TurnRow, carried: tuple[str, ...]) -> None:
    for other in database.of_user(row.turn.user_id):
        if other.turn.id in carried and other.carried_by is None:
            other.carried_by = row.turn.id
