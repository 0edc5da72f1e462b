"""Deletion of the user's history, which the agent forgets as a conversation and keeps as memory."""

from functools import partial

from aiohttp import web

from server.api.memory import MEMORY_ERRORS, with_agent
from server.http.app_keys import HISTORY_DELETION, HUB, NOW, PROVISIONER
from server.http.routes import Reply, Route
from server.ports import AgentHandle, Announcement, Principal
from server.protocol.codes import ErrorCode
from server.protocol.shapes import wire_time


async def delete_history(request: web.Request, principal: Principal) -> web.Response:
    """Delete all messages; usage and costs stay. The agent begins a new conversation and keeps its memory. Refused
    while a turn waits or runs. Every device gets the event `history.deleted`."""
    hub, user_id = request.app[HUB], principal.user_id

    async def delete(agent: AgentHandle) -> None:
        await hub.while_idle(user_id, partial(request.app[HISTORY_DELETION].delete, user_id, agent))

    try:
        await with_agent(request, principal, delete)
    finally:
        request.app[PROVISIONER].evict(user_id)
    hub.announce(user_id, Announcement("history.deleted", {"deleted_at": wire_time(request.app[NOW]())}))
    return web.Response(status=204)


ROUTES = (
    Route(
        "DELETE",
        "/api/v1/chat/history",
        "account",
        delete_history,
        "chat",
        "Delete the history",
        {204: Reply("The history is deleted.")},
        errors=(ErrorCode.BUSY, ErrorCode.EVENTS_UNAVAILABLE, *MEMORY_ERRORS),
    ),
)
