"""What operators read of the services behind this server: the findings of `chat doctor`."""

from aiohttp import web

from server.api import admin_schemas
from server.api.ops import VERSION
from server.http.app_keys import READINESS, SERVICE_HEALTH
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.protocol.shapes import wire_time


async def health(request: web.Request) -> web.Response:
    """The state of this instance and the services, and how to fix problems. At most 15 seconds old."""
    checked_at, found = await request.app[SERVICE_HEALTH].report()
    instance = await request.app[READINESS].report()
    return json_response(
        {
            "instance": instance.wire(VERSION),
            "checked_at": wire_time(checked_at),
            "checks": [
                {
                    "service": one.service,
                    "name": one.name,
                    "level": one.finding.level,
                    "message": one.finding.message,
                    "remedy": one.finding.remedy or None,
                }
                for one in found
            ],
        }
    )


ROUTES = (
    Route(
        "GET",
        "/api/v1/admin/health",
        "admin",
        health,
        "admin",
        "Health of the services",
        {200: Reply("The findings of all checks.", admin_schemas.ServiceHealth)},
    ),
)
