"""The parts of responses about usage that users and operators share."""

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from server.api.models import UsageQuery
from server.ports import ModelUsage, Standing, UsageSum
from server.protocol.codes import ErrorCode
from server.protocol.errors import FieldError, PlatformError
from server.protocol.shapes import MONEY, Json, total_of, wire_money, wire_time

_DEFAULT_DAYS: Final = 30
_LONGEST_DAYS: Final = 366
_COUNTS: Final = (
    "model_calls",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "tokens",
)


def requested_range(query: UsageQuery, today: date) -> tuple[date, date]:
    """The requested range, both days included. Raises PlatformError(invalid_request)."""
    last = query.last or today
    first = query.first or last - timedelta(days=_DEFAULT_DAYS - 1)
    if first > last:
        problem = FieldError("/from", "must not be after `to`")
    elif (last - first).days >= _LONGEST_DAYS:
        problem = FieldError("/from", f"must be at most {_LONGEST_DAYS} days before `to`, both included")
    else:
        return first, last
    raise PlatformError(ErrorCode.INVALID_REQUEST, f"The range is not valid: {problem.detail}.", errors=(problem,))


def spending_shape(spent: UsageSum) -> Json:
    return {"messages": spent.messages, "tokens": spent.tokens, "cost": wire_money(spent.cost)}


def models_shape(used: Sequence[ModelUsage]) -> list[Json]:
    """Usage by model, the most expensive first."""
    rows: dict[str, list[ModelUsage]] = {}
    for row in used:
        rows.setdefault(row.model, []).append(row)
    costs = {model: total_of(row.cost for row in own) for model, own in rows.items()}
    return [
        {
            "model": model,
            **{name: sum(getattr(row, name) for row in rows[model]) for name in _COUNTS},
            "cost": wire_money(costs[model]),
        }
        for model in sorted(costs, key=lambda model: (-costs[model], model))
    ]


def budget_shape(standing: Standing | None) -> Json | None:
    if standing is None or (standing.limit is None and standing.period is None):
        return None
    remaining = None if standing.limit is None else max(MONEY.subtract(standing.limit, standing.spent), Decimal(0))
    return {
        "limit": wire_money(standing.limit),
        "spent": wire_money(standing.spent),
        "remaining": wire_money(remaining),
        "period": standing.period,
        "started_at": wire_time(standing.started_at),
        "resets_at": wire_time(standing.resets_at),
    }
