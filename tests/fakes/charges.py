"""Derives figures from the ledger in memory: the charge of a turn, the sums of a day, and the state of a budget."""

from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal

from server.ports import BudgetWarning, Standing
from server.protocol.codes import ErrorCode
from server.protocol.shapes import CostStatus, TurnError, TurnStatus, Usage
from tests.fakes.database import DayRow, LedgerEntry, MemoryDatabase, TurnRow, mark

MOST_DOLLARS = Decimal("9999.999999")
MOST_TOKENS = 2**31 - 1
"""The maxima of the specified columns."""


def derive_turn(database: MemoryDatabase, turn_id: str) -> None:
    """Set the usage and cost of a turn and its reply to the sums of their rows."""
    row = database.turns.get(turn_id)
    if row is None:
        return
    ended = [one for (turn, _), one in database.attempts.items() if turn == turn_id and one.ended_at is not None]
    entries = [entry for entry in database.ledger.values() if entry.turn_id == turn_id]
    counted = [entry for entry in entries if entry.counted]
    usage = _usage(counted)
    cost = _cost(counted)
    is_open = any(one.settled_at is None for one in ended)
    if cost is None and ended and not is_open and not counted:
        cost = Decimal(0)
    row.turn = replace(row.turn, usage=usage, cost=cost, cost_status=_status(bool(ended), is_open, entries))
    if row.turn.message is not None:
        tokens = min(usage.total_tokens, MOST_TOKENS) if usage else None
        row.turn = replace(row.turn, message=replace(row.turn.message, tokens_used=tokens, cost=rounded(cost)))


def derive_days(database: MemoryDatabase, user_id: str) -> None:
    """Set the usage of the user's days to the sums of their rows."""
    entries = [entry for entry in database.ledger.values() if entry.user_id == user_id]
    known = {day for owner, day in database.days if owner == user_id}
    for day in known | {entry.started_at.date() for entry in entries}:
        counted = [entry for entry in entries if entry.counted and entry.started_at.date() == day]
        row = database.days.setdefault((user_id, day), DayRow())
        row.tokens = min(sum(entry.usage.total_tokens for entry in counted), MOST_TOKENS)
        row.cost = _cost(counted) or Decimal(0)


def rounded(cost: Decimal | None) -> Decimal | None:
    """A cost as the messages table stores it: six decimals, at most four digits before them."""
    return None if cost is None else min(cost.quantize(Decimal("0.000001"), ROUND_HALF_UP), MOST_DOLLARS)


def standing(database: MemoryDatabase, user_id: str) -> Standing | None:
    account = database.billing.get(user_id)
    if account is None:
        return None
    is_over = account.resets_at is not None and account.resets_at <= database.clock()
    started_at = account.resets_at if is_over else account.started_at
    spent = [
        entry.cost or Decimal(0)
        for entry in database.ledger.values()
        if entry.user_id == user_id and entry.counted and (started_at is None or entry.started_at >= started_at)
    ]
    resets_at = None if is_over else account.resets_at
    return Standing(account.limit, sum(spent, Decimal(0)), account.period, started_at, resets_at)


def over_budget(database: MemoryDatabase, user_id: str) -> TurnError | None:
    """The error that refuses the user's messages; None while the budget is not used up."""
    found = standing(database, user_id)
    if found is None or found.limit is None or found.spent < found.limit:
        return None
    return budget_error(database, user_id, TurnError.by_rule(ErrorCode.BUDGET_EXCEEDED))


def budget_error(database: MemoryDatabase, user_id: str, error: TurnError) -> TurnError:
    """The error with the state of the budget."""
    found = standing(database, user_id)
    if found is None:
        return error
    return replace(error, spent=found.spent, limit=found.limit, resets_at=found.resets_at)


def leave_unsent(database: MemoryDatabase, row: TurnRow, error: TurnError) -> None:
    row.turn = mark(replace(row.turn, status=TurnStatus.UNSENT, error=error, finished_at=database.clock()), "unsent")


def budget_warning(database: MemoryDatabase, user_id: str) -> BudgetWarning | None:
    """The warning for the highest level that was reached in this period, once per level."""
    found = standing(database, user_id)
    if found is None or found.limit is None:
        return None
    level = 100 if found.spent >= found.limit else 80 if found.spent >= found.limit * Decimal("0.8") else 0
    account = database.billing[user_id]
    period, warned = account.warned
    if period == found.started_at and warned >= level:
        return None
    account.warned = found.started_at, level
    return BudgetWarning(found.spent, found.limit, level) if level else None


def _usage(counted: list[LedgerEntry]) -> Usage | None:
    if not counted:
        return None
    return Usage(
        prompt_tokens=sum(entry.usage.prompt_tokens for entry in counted),
        completion_tokens=sum(entry.usage.completion_tokens for entry in counted),
        total_tokens=sum(entry.usage.total_tokens for entry in counted),
        cached_tokens=sum(entry.usage.cached_tokens for entry in counted),
        reasoning_tokens=sum(entry.usage.reasoning_tokens for entry in counted),
        model_calls=sum(entry.usage.model_calls for entry in counted),
    )


def _cost(counted: list[LedgerEntry]) -> Decimal | None:
    costs = [entry.cost for entry in counted if entry.cost is not None]
    return sum(costs, Decimal(0)) if costs else None


def _status(was_tried: bool, is_open: bool, entries: list[LedgerEntry]) -> CostStatus | None:
    if not was_tried:
        return None
    statuses = {entry.status for entry in entries}
    if is_open or "estimated" in statuses:
        return "estimated"
    return "written_off" if "written_off" in statuses else "settled"
