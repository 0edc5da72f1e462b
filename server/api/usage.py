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
from server.api.usage_shapes import budget_shape, models_shape, requested_range, spending_shape
from server.http.app_keys import BUDGETS, NOW, READS
from server.http.content_negotiation import prefers_csv
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.ports import ModelUsage, Principal, Standing, UsageDay, UsageSum
from server.protocol.shapes import Json, total_of, wire_money, wire_time

_NOTHING: Final = UsageSum(0, 0, Decimal(0))


async def usage(request: web.Request, principal: Principal, query: UsageQuery) -> web.Response:
    """Messages, tokens and cost: total, today, and in a range of days in UTC. As `text/csv`: one row for each day and
    model of the range."""
    now = request.app[NOW]().astimezone(UTC)
    today = now.date()
    first, last = requested_range(query, today)
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
            "total": spending_shape(total),
            "today": spending_shape(_sum(day for day in month if day.date == today)),
            "range": _range_shape(first, last, days, models),
            "models": models_shape(models),
            "days": _by_day(days, models),
            "budget": budget_shape(standing),
            "projection": _projection_shape(_projection(standing, _sum(month).cost, now)),
            "currency": "USD",
            "timezone": "UTC",
        },
        headers={"Vary": "Accept"},
    )


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


def _range_shape(first: date, last: date, days: Sequence[UsageDay], models: Sequence[ModelUsage]) -> Json:
    background = total_of(used.background_cost for used in models)
    return {
        "from": first.isoformat(),
        "to": last.isoformat(),
        **spending_shape(_sum(days)),
        "background": {"cost": wire_money(background)},
    }


def _by_day(days: Iterable[UsageDay], models: Sequence[ModelUsage]) -> list[Json]:
    """Usage by day, including days with background calls only."""
    spent = {day.date: UsageSum(day.messages, day.tokens, day.cost) for day in days}
    used: dict[date, list[ModelUsage]] = {}
    for row in models:
        used.setdefault(row.date, []).append(row)
    return [
        {"date": day.isoformat(), **spending_shape(spent.get(day, _NOTHING)), "models": models_shape(used.get(day, ()))}
        for day in sorted(spent.keys() | used.keys())
    ]


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
