"""The status of the user's agent."""

from aiohttp import web

from server.api import schemas
from server.http.app_keys import HUB, READS, SETTINGS
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.ports import Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import wire_time


async def status(request: web.Request, principal: Principal) -> web.Response:
    """The status of the agent. Does not call Letta, so it also works while Letta is unavailable."""
    profile = await request.app[READS].profile(principal)
    if profile is None:
        raise PlatformError(ErrorCode.NOT_FOUND, "This account no longer exists.")
    snapshot = await request.app[HUB].snapshot(principal.user_id)
    running = snapshot.running
    return json_response(
        {
            "status": profile.user.agent_status,
            "reason": profile.status_reason,
            "agent_id": profile.agent_id,
            "model": request.app[SETTINGS].agent_model,
            "turn": running and {"turn_id": running.turn_id, "text": snapshot.text},
            "queued": len(snapshot.queued),
            "updated_at": wire_time(profile.updated_at),
        }
    )


ROUTES = (
    Route(
        "GET",
        "/api/v1/agent/status",
        "read",
        status,
        "agent",
        "The status of the user's agent",
        {200: Reply("The agent.", schemas.Agent)},
    ),
)
