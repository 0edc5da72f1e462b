"""Usage and its cost: total, today, by day and by model, and the budget; as JSON or CSV.

All figures come from the ledger, so they are available without the model gateway."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Final

from aiohttp import web

from server.api import schemas
from server.api.forecast import Forecast, forecast
from server.api.models import UsageQuery
from server.api.usage_csv import usage_csv
from server.http.app_keys import BUDGETS, NOW, READS
from server.http.content_negotiation import prefers_csv
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.ports import ModelUsage, Principal, Standing, UsageDay, UsageSum
from server.protocol.codes import ErrorCode
from server.protocol.errors import FieldError, PlatformError
from server.protocol.shapes import MONEY, Json, total_of, wire_money, wire_time

_DEFAULT_DAYS: Final = 30
_LONGEST_DAYS: Final = 366
_NOTHING: Final = UsageSum(0, 0, Decimal(0))
_COUNTS: Final = (
    "model_calls",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "tokens",
)


async def usage(request: web.Request, principal: Principal, query: UsageQuery) -> web.Response:
    """Messages, tokens and cost: total, today, and in a range of days in UTC. As `text/csv`: one row for each day and
    model of the range."""
    now = request.app[NOW]().astimezone(UTC)
    today = now.date()
    first, last = _range(query, today)
    reads = request.app[READS]
    if prefers_csv(request.headers.get("Accept")):
        return usage_csv(await reads.usage_models(principal, first, last), first, last)
    await request.app[BUDGETS].refresh_if_old(principal.user_id)
    # Alone: after an outage the breaker lets one call through; refused calls beside it would cancel it.
    total = await reads.usage_total(principal)
    async with asyncio.TaskGroup() as calls:
        in_range = calls.create_task(reads.usage_days(principal, first, last))
        in_month = calls.create_task(reads.usage_days(principal, today.replace(day=1), today))
        by_model = calls.create_task(reads.usage_models(principal, first, last))
        of_budget = calls.create_task(reads.standing(principal))
    days, month, models, standing = in_range.result(), in_month.result(), by_model.result(), of_budget.result()
    return json_response(
        {
            "total": _spending(total),
            "today": _spending(_sum(day for day in month if day.date == today)),
            "range": _range_shape(first, last, days, models),
            "models": _by_model(models),
            "days": _by_day(days, models),
            "budget": _budget_shape(standing),
            "projection": _projection_shape(_projection(standing, _sum(month).cost, now)),
            "currency": "USD",
            "timezone": "UTC",
        },
        headers={"Vary": "Accept"},
    )


def _range(query: UsageQuery, today: date) -> tuple[date, date]:
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


def _sum(days: Iterable[UsageDay]) -> UsageSum:
    summed = tuple(days)
    return UsageSum(
        sum(day.messages for day in summed), sum(day.tokens for day in summed), total_of(day.cost for day in summed)
    )


def _projection(standing: Standing | None, month: Decimal, now: datetime) -> Forecast | None:
    """Forecast for the budget's period if it is known, else for the month."""
    if standing is not None and standing.started_at is not None and standing.resets_at is not None:
        return forecast(standing.spent, standing.started_at, standing.resets_at, now)
    began = now.date().replace(day=1)
    ends = (began + timedelta(days=31)).replace(day=1)
    return forecast(month, datetime.combine(began, time(), UTC), datetime.combine(ends, time(), UTC), now)


def _spending(spent: UsageSum) -> Json:
    return {"messages": spent.messages, "tokens": spent.tokens, "cost": wire_money(spent.cost)}


def _range_shape(first: date, last: date, days: Sequence[UsageDay], models: Sequence[ModelUsage]) -> Json:
    background = total_of(used.background_cost for used in models)
    return {
        "from": first.isoformat(),
        "to": last.isoformat(),
        **_spending(_sum(days)),
        "background": {"cost": wire_money(background)},
    }


def _by_day(days: Iterable[UsageDay], models: Sequence[ModelUsage]) -> list[Json]:
    """Usage by day, including days with background calls only."""
    spent = {day.date: UsageSum(day.messages, day.tokens, day.cost) for day in days}
    used: dict[date, list[ModelUsage]] = {}
    for row in models:
        used.setdefault(row.date, []).append(row)
    return [
        {"date": day.isoformat(), **_spending(spent.get(day, _NOTHING)), "models": _by_model(used.get(day, ()))}
        for day in sorted(spent.keys() | used.keys())
    ]


def _by_model(used: Sequence[ModelUsage]) -> list[Json]:
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


def _budget_shape(standing: Standing | None) -> Json | None:
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


def _projection_shape(projection: Forecast | None) -> Json | None:
    if projection is None:
        return None
    return {"until": wire_time(projection.until), "cost": wire_money(projection.cost)}


ROUTES = (
    Route(
        "GET",
        "/api/v1/user/usage",
        "read",
        usage,
        "user",
        "Usage and cost",
        {200: Reply("Sums, days, models and the budget; or CSV.", schemas.UserUsage, media="text/csv")},
        headers={"Accept": "`text/csv`: a CSV file."},
    ),
)
