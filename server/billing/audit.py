"""Proves that the ledger equals the gateway's log, row by row to the last digit, and that all sums equal its rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from server.ports import BillingGateway, Deviation, Ledger, LedgerRow, ModelCall
from server.ports.schedule import UNMATCHED_AFTER


@dataclass(slots=True)
class Audit:
    """The comparison of one user's ledger and log. US dollars, unrounded.

    `missing`: calls of the log that the ledger lacks; `surplus`: rows without a call; `different`: rows with another
    cost or number of tokens. `waiting`: calls and estimates of attempts that are not settled yet. `flagged`: rows with
    a flag. `unlogged`: turns whose reported calls the gateway has not logged completely.
    """

    user_id: str
    calls: int = 0
    logged: Decimal = Decimal(0)
    rows: int = 0
    entered: Decimal = Decimal(0)
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    written_off: list[str] = field(default_factory=list)
    flagged: list[str] = field(default_factory=list)
    unlogged: list[str] = field(default_factory=list)
    deviations: list[Deviation] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether ledger, log and derived sums are equal, except for what is still waiting."""
        return not (self.missing or self.surplus or self.different or self.deviations)


async def audit(ledger: Ledger, billing: BillingGateway, user_id: str, first: date, last: date) -> Audit:
    """Compare one user's UTC days, both included, by the gateway's clock. Raises PlatformError."""
    found = Audit(user_id)
    began = datetime.combine(first, time(), UTC)
    ended = datetime.combine(last + timedelta(days=1), time(), UTC) - timedelta(microseconds=1)
    search = await ledger.search(user_id, began)
    spent = await billing.spend(await ledger.key_hashes(user_id), began, ended)
    rows = await ledger.rows(user_id, first, last)
    unsettled = [attempt.sent_at for attempt in search.attempts if not attempt.is_settled]
    clocks = timedelta(seconds=spent.clock - spent.clock_error)
    _compare(found, spent.calls, rows, min(unsettled) + clocks if unsettled else None)
    found.unlogged += [_unlogged(row) for row in rows if _is_unlogged(row, search.now)]
    found.deviations += await ledger.deviations(user_id)
    return found


def _compare(
    found: Audit, calls: Sequence[ModelCall], rows: Sequence[LedgerRow], unsettled_since: datetime | None
) -> None:
    entered = {row.request_id: row for row in rows if row.status == "settled"}
    found.calls, found.rows = len(calls), len(entered)
    found.logged = sum((call.cost for call in calls), Decimal(0))
    found.entered = sum((row.cost or Decimal(0) for row in entered.values()), Decimal(0))
    for call in calls:
        row = entered.pop(call.request_id, None)
        if row is None:
            is_waiting = unsettled_since is not None and call.started_at >= unsettled_since
            (found.waiting if is_waiting else found.missing).append(call.request_id)
        elif _figures(row) != _figures(call):
            found.different.append(call.request_id)
    found.surplus += entered
    found.waiting += [row.request_id for row in rows if row.status == "estimated"]
    found.written_off += [row.request_id for row in rows if row.status == "written_off"]
    found.flagged += [f"{row.request_id}: {row.flag}" for row in rows if row.flag is not None]


def _is_unlogged(row: LedgerRow, now: datetime) -> bool:
    """Whether the log should have confirmed this estimate by now and has not. If an upstream repeats the ids of its
    completions, LiteLLM logs only the first call of each."""
    return row.status == "written_off" or (row.status == "estimated" and now - row.started_at > UNMATCHED_AFTER)


def _unlogged(row: LedgerRow) -> str:
    cost = "no known price" if row.cost is None else f"${row.cost:f}"
    return f"turn {row.turn_id}: {row.prompt_tokens} + {row.completion_tokens} tokens, {cost}, {row.status}"


def _figures(one: LedgerRow | ModelCall) -> tuple[object, ...]:
    return (
        one.cost,
        one.outcome,
        one.model,
        one.prompt_tokens,
        one.completion_tokens,
        one.cached_tokens,
        one.reasoning_tokens,
    )
