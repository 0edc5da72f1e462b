"""What the end of an attempt does to the rows in memory: charge, reply, daily metrics, what was carried along."""

import uuid
from dataclasses import astuple, replace
from decimal import ROUND_HALF_UP, Decimal

from server.ports import TurnEnd
from server.protocol.shapes import Message, MessageStatus, TurnStatus, Usage
from tests.fakes.database import MemoryDatabase, TurnRow, mark


def end_attempt(database: MemoryDatabase, row: TurnRow, end: TurnEnd) -> None:
    """End the open attempt of a turn. An unsent one costs nothing and leaves no reply."""
    if end.status is TurnStatus.UNSENT:
        row.turn = mark(replace(row.turn, started_at=None), "unsent")
    else:
        _charge(database, row, end)
        _reply(database, row, end)
    row.turn = replace(row.turn, status=end.status, error=end.error, finished_at=database.clock())
    if end.status is TurnStatus.COMPLETED:
        _carry(database, row, end.carried)


def _charge(database: MemoryDatabase, row: TurnRow, end: TurnEnd) -> None:
    turn = row.turn
    usage, cost = turn.usage, turn.cost
    if end.usage is not None:
        usage = Usage(*map(sum, zip(astuple(usage or Usage()), astuple(end.usage), strict=True)))
    if end.cost is not None:
        cost = (cost or Decimal(0)) + end.cost
    row.turn = replace(turn, usage=usage, cost=cost, cost_status=end.cost_status or turn.cost_status)
    database.count(turn.user_id, tokens=end.usage.total_tokens if end.usage else 0, cost=end.cost)


def _reply(database: MemoryDatabase, row: TurnRow, end: TurnEnd) -> None:
    """Store the reply; a further attempt that brought no text keeps the partial one of an earlier attempt."""
    turn = row.turn
    message = turn.message
    completed = end.status is TurnStatus.COMPLETED
    if end.text or completed:
        status: MessageStatus = "complete" if completed else "partial"
        message = replace(message or _new_reply(database, row), content=end.text, status=status)
    if message is not None:
        tokens = turn.usage.total_tokens if turn.usage else None
        row.turn = replace(turn, message=replace(message, tokens_used=tokens, cost=_rounded(turn.cost)))


def _new_reply(database: MemoryDatabase, row: TurnRow) -> Message:
    turn = row.turn
    database.count(turn.user_id, messages=1)
    position = 2 * turn.number + 1
    return Message(str(uuid.uuid4()), turn.id, "assistant", "", "partial", None, None, database.clock(), position)


def _rounded(cost: Decimal | None) -> Decimal | None:
    """A cost as the messages table keeps it: six decimals."""
    return None if cost is None else cost.quantize(Decimal("0.000001"), ROUND_HALF_UP)


def _carry(database: MemoryDatabase, row: TurnRow, carried: tuple[str, ...]) -> None:
    for other in database.of_user(row.turn.user_id):
        if other.turn.id in carried and other.carried_by is None:
            other.carried_by = row.turn.id
