"""What operators read of the whole platform: usage of all users, and the record of operators' actions."""

from datetime import UTC

from aiohttp import web

from server.api import admin_schemas
from server.api.admin_models import AuditQuery
from server.api.models import UsageQuery
from server.api.usage_csv import usage_csv
from server.api.usage_shapes import models_shape, requested_range, spending_shape
from server.http.app_keys import ADMIN, NOW
from server.http.content_negotiation import prefers_csv
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.ports import AdminAction, UsageSum
from server.protocol.shapes import Json, total_of, wire_money, wire_time


async def usage(request: web.Request, query: UsageQuery) -> web.Response:
    """The usage of all users together, by day and model. As `text/csv`: one row for each day and model."""
    first, last = requested_range(query, request.app[NOW]().astimezone(UTC).date())
    found = await request.app[ADMIN].usage(first, last)
    if prefers_csv(request.headers.get("Accept")):
        return usage_csv(found.models, first, last)
    in_range = UsageSum(
        sum(day.messages for day in found.days),
        sum(day.tokens for day in found.days),
        total_of(day.cost for day in found.days),
    )
    background = total_of(used.background_cost for used in found.models)
    return json_response(
        {
            "range": {
                "from": first.isoformat(),
                "to": last.isoformat(),
                **spending_shape(in_range),
                "background": {"cost": wire_money(background)},
            },
            "models": models_shape(found.models),
            "days": [
                {
                    "date": day.date.isoformat(),
                    "users": day.users,
                    **spending_shape(UsageSum(day.messages, day.tokens, day.cost)),
                    "models": models_shape([used for used in found.models if used.date == day.date]),
                }
                for day in found.days
            ],
            "currency": "USD",
            "timezone": "UTC",
        },
        headers={"Vary": "Accept"},
    )


async def audit(request: web.Request, query: AuditQuery) -> web.Response:
    """What operators did, over HTTP and by commands. The record is never changed."""
    user_id = None if query.user_id is None else str(query.user_id)
    found, has_more = await request.app[ADMIN].actions(user_id, query.before, query.limit)
    next_cursor = found[-1].id if has_more else None
    return json_response({"data": list(map(_shape, found)), "has_more": has_more, "next_cursor": next_cursor})


def _shape(action: AdminAction) -> Json:
    return {
        "id": action.id,
        "at": wire_time(action.at),
        "actor_id": action.actor_id,
        "actor_email": action.actor_email,
        "source": action.source,
        "action": action.action,
        "user_id": action.user_id,
        "user_email": action.user_email,
        "details": action.details,
        "outcome": action.outcome,
        "reason": action.reason,
        "ended_at": wire_time(action.ended_at),
    }


ROUTES = (
    Route(
        "GET",
        "/api/v1/admin/usage",
        "admin",
        usage,
        "admin",
        "Usage of all users",
        {200: Reply("Sums, days and models; or CSV.", admin_schemas.UsageOfAll, media="text/csv")},
        headers={"Accept": "`text/csv`: a CSV file."},
    ),
    Route(
        "GET",
        "/api/v1/admin/audit",
        "admin",
        audit,
        "admin",
        "What operators did",
        {200: Reply("A page of actions.", admin_schemas.Actions)},
    ),
)
