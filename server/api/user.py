"""The user's profile."""

from datetime import datetime
from functools import partial

import structlog
from aiohttp import web

from server.api import schemas
from server.api.models import UpdateProfile
from server.http.app_keys import ACCOUNTS, HUB, PROVISIONER, READS
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.ports import Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Json, User, wire_time

log = structlog.get_logger(__name__)


async def profile(request: web.Request, principal: Principal) -> web.Response:
    found = await request.app[READS].profile(principal)
    if found is None:
        raise PlatformError(ErrorCode.NOT_FOUND, "This account no longer exists.")
    return json_response(_profile(found.user, found.agent_id, found.updated_at))


async def update_profile(request: web.Request, principal: Principal, body: UpdateProfile) -> web.Response:
    account = await request.app[ACCOUNTS].rename(principal.user_id, body.name)
    if account.handle is not None:
        await _sync_name(request, principal.user_id)
    return json_response(_profile(account.user, account.agent_id, account.updated_at))


async def _sync_name(request: web.Request, user_id: str) -> None:
    """Write the name to the agent's memory. If a turn runs or Letta is unavailable, the next turn does it."""
    provisioner = request.app[PROVISIONER]
    provisioner.evict(user_id)
    try:
        await request.app[HUB].while_idle(user_id, partial(provisioner.sync_name, user_id))
    except PlatformError as error:
        log.info("profile.sync_postponed", code=error.code)


def _profile(user: User, agent_id: str | None, updated_at: datetime) -> Json:
    return {**user.wire(), "agent_id": agent_id, "updated_at": wire_time(updated_at)}


ROUTES = (
    Route(
        "GET",
        "/api/v1/user/profile",
        "read",
        profile,
        "user",
        "The user's profile",
        {200: Reply("The profile.", schemas.Profile)},
    ),
    Route(
        "PATCH",
        "/api/v1/user/profile",
        "account",
        update_profile,
        "user",
        "Change the user's name",
        {200: Reply("The profile.", schemas.Profile)},
    ),
)
