"""One's own profile and spending."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final

import structlog
from aiohttp import web

from server.api import schemas
from server.api.answers import answer
from server.api.models import UpdateProfile, UsageQuery
from server.api.routes import Reply, Route
from server.appkeys import ACCOUNTS, BILLING, NOW, READS
from server.ports import BillingGateway, Budget, Principal, UsageDay, UsageSum
from server.protocol.codes import ErrorCode
from server.protocol.errors import FieldError, PlatformError
from server.protocol.shapes import Json, User, wire_money, wire_time

log = structlog.get_logger(__name__)

_DEFAULT_DAYS: Final = 30
_LONGEST_DAYS: Final = 366
_BUDGET_SECONDS: Final = 3.0


async def profile(request: web.Request, principal: Principal) -> web.Response:
    found = await request.app[READS].profile(principal)
    if found is None:
        raise PlatformError(ErrorCode.NOT_FOUND, "This account no longer exists.")
    return answer(_profile(found.user, found.agent_id, found.updated_at))


async def update_profile(request: web.Request, principal: Principal, body: UpdateProfile) -> web.Response:
    account = await request.app[ACCOUNTS].rename(principal.user_id, body.name)
    return answer(_profile(account.user, account.agent_id, account.updated_at))


async def usage(request: web.Request, principal: Principal, query: UsageQuery) -> web.Response:
    """Messages, tokens and cost: ever, today, and in a range of days. The budget is LiteLLM's, null when it is away."""
    today = request.app[NOW]().astimezone(UTC).date()
    first, last = _range(query, today)
    reads = request.app[READS]
    total = await reads.usage_total(principal)  # alone: after an outage one call is let through, and must not be
    async with asyncio.TaskGroup() as asked:  # cancelled because those beside it are refused
        in_range = asked.create_task(reads.usage_days(principal, first, last))
        todays = asked.create_task(reads.usage_days(principal, today, today))
        limit = asked.create_task(_budget(request.app[BILLING], principal.user_id))
    days, budget = in_range.result(), limit.result()
    return answer(
        {
            "total": _spending(total),
            "today": _spending(_sum(todays.result())),
            "range": {"from": first.isoformat(), "to": last.isoformat(), **_spending(_sum(days))},
            "days": [
                {"date": day.date.isoformat(), **_spending(UsageSum(day.messages, day.tokens, day.cost))}
                for day in sorted(days, key=lambda day: day.date)
            ],
            "budget": budget and _budget_shape(budget),
            "currency": "USD",
            "timezone": "UTC",
        }
    )


def _range(query: UsageQuery, today: date) -> tuple[date, date]:
    """The range asked for, both days included. Raises PlatformError(invalid_request)."""
    last = query.last or today
    first = query.first or last - timedelta(days=_DEFAULT_DAYS - 1)
    if first > last:
        problem = FieldError("/from", "must not be after `to`")
    elif (last - first).days >= _LONGEST_DAYS:
        problem = FieldError("/from", f"must be at most {_LONGEST_DAYS} days before `to`, both included")
    else:
        return first, last
    raise PlatformError(ErrorCode.INVALID_REQUEST, f"The range is not valid: {problem.detail}.", errors=(problem,))


async def _budget(billing: BillingGateway, user_id: str) -> Budget | None:
    try:
        async with asyncio.timeout(_BUDGET_SECONDS):
            return await billing.budget(user_id)
    except (PlatformError, TimeoutError) as cause:
        log.warning("usage.budget_unknown", reason=str(cause) or "no answer in time")
        return None


def _sum(days: Iterable[UsageDay]) -> UsageSum:
    messages, tokens, cost = 0, 0, Decimal(0)
    for day in days:
        messages, tokens, cost = messages + day.messages, tokens + day.tokens, cost + day.cost
    return UsageSum(messages, tokens, cost)


def _spending(spent: UsageSum) -> Json:
    return {"messages": spent.messages, "tokens": spent.tokens, "cost": wire_money(spent.cost)}


def _budget_shape(budget: Budget) -> Json:
    remaining = None if budget.limit is None else max(budget.limit - budget.spent, Decimal(0))
    return {
        "limit": wire_money(budget.limit),
        "spent": wire_money(budget.spent),
        "remaining": wire_money(remaining),
        "period": budget.period,
        "resets_at": wire_time(budget.resets_at),
    }


def _profile(user: User, agent_id: str | None, updated_at: datetime) -> Json:
    return {**user.wire(), "agent_id": agent_id, "updated_at": wire_time(updated_at)}


ROUTES = (
    Route(
        "GET", "/api/v1/user/profile", profile, "user", "One's profile", {200: Reply("The profile.", schemas.Profile)}
    ),
    Route(
        "PATCH",
        "/api/v1/user/profile",
        update_profile,
        "user",
        "Change one's name",
        {200: Reply("The profile.", schemas.Profile)},
    ),
    Route(
        "GET",
        "/api/v1/user/usage",
        usage,
        "user",
        "What was used and what it cost",
        {200: Reply("Sums, days and the budget.", schemas.UserUsage)},
    ),
)
