"""The user's sign-ins, one for each device: listed, ended."""

from uuid import UUID

import structlog
from aiohttp import web

from server.api import schemas
from server.http.app_keys import CONNECTIONS, CREDENTIALS, HUB
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.ports import Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import wire_time

log = structlog.get_logger(__name__)


async def sessions(request: web.Request, principal: Principal) -> web.Response:
    """The user's sign-ins, and the open connections on all instances; the newest first."""
    found = await request.app[CREDENTIALS].sign_ins(principal.user_id)
    connections = await request.app[CONNECTIONS].of_user(principal.user_id)
    return json_response(
        {
            "data": [
                {
                    "id": one.id,
                    "current": one.id == principal.session_id,
                    "created_at": wire_time(one.created_at),
                    "last_seen_at": wire_time(one.last_seen_at),
                    "user_agent": one.user_agent,
                    "address": one.address,
                }
                for one in found
            ],
            "connections": [
                {
                    "kind": one.kind,
                    "opened_at": wire_time(one.opened_at),
                    "session_id": one.session_id,
                    "api_key_id": one.key_id,
                }
                for one in connections
            ],
        }
    )


async def end_session(request: web.Request, principal: Principal, session_id: UUID) -> web.Response:
    """Sign out one device: its tokens are refused at once, and its sockets and streams end."""
    if not await request.app[CREDENTIALS].end_sign_in(principal.user_id, str(session_id)):
        raise PlatformError(ErrorCode.NOT_FOUND)
    log.info("auth.session_ended", session_id=str(session_id))
    request.app[HUB].recheck(principal.user_id)
    return web.Response(status=204)


ROUTES = (
    Route(
        "GET",
        "/api/v1/auth/sessions",
        "account",
        sessions,
        "auth",
        "The user's sign-ins and connections",
        {200: Reply("The sign-ins and connections.", schemas.SignIns)},
    ),
    Route(
        "DELETE",
        "/api/v1/auth/sessions/{session_id}",
        "account",
        end_session,
        "auth",
        "Sign out one device",
        {204: Reply("Signed out.")},
        errors=(ErrorCode.NOT_FOUND,),
    ),
)
