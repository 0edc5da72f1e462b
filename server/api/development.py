"""What only a server in development serves: faults on purpose, for the console's event inspector.

The API's documents do not describe it, and in production its paths are unknown."""

from aiohttp import web

from server.http.app_keys import BREAKABLE, PROVISIONER
from server.http.routes import Reply, Route
from server.ports import Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

_SECONDS = 5.0


async def break_stream(request: web.Request, principal: Principal) -> web.Response:
    """Break the connection to the agent server over which the user's reply is streamed. The run is recovered."""
    agent = await request.app[PROVISIONER].ready(principal.user_id, principal.email, timeout=_SECONDS)
    if not request.app[BREAKABLE].break_stream(agent):
        raise PlatformError(ErrorCode.NOT_FOUND, "No reply is being streamed to you by this server.")
    return web.Response(status=204)


ROUTES = (
    Route(
        "POST",
        "/api/v1/development/break-stream",
        "chat",
        break_stream,
        "chat",
        "Break the stream of the running reply",
        {204: Reply("It breaks before its next event.")},
        errors=(ErrorCode.NOT_FOUND, ErrorCode.AGENT_UNAVAILABLE),
    ),
)
