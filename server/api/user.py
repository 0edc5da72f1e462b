"""The user's profile, the export of all data, and the deletion of the account."""

from datetime import datetime
from functools import partial
from typing import Final

import structlog
from aiohttp import web

from server.api import schemas
from server.api.auth import client_address
from server.api.export_stream import send_export
from server.api.models import DeleteUser, UpdateProfile
from server.http.app_keys import (
    ACCOUNT_DELETION,
    ACCOUNT_EXPORT,
    ACCOUNTS,
    HUB,
    NOW,
    PROVISIONER,
    READS,
    REAUTHENTICATION,
)
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


async def delete_user(request: web.Request, principal: Principal, body: DeleteUser) -> web.Response:
    """Delete the account with everything that belongs to it, which cannot be undone. Needs the password, or a sign-in
    within the last ten minutes; a refresh of the token is no sign-in."""
    app = request.app
    if not principal.is_anonymous:  # who never signed in has nothing else to prove it with
        await app[REAUTHENTICATION].require(
            principal, body.current_password, address=client_address(request), captcha_token=body.captcha_token
        )
    is_complete = await app[ACCOUNT_DELETION].delete(principal.user_id, timeout=_DELETION_SECONDS)
    app[PROVISIONER].evict(principal.user_id)
    return web.Response(status=204) if is_complete else json_response({"status": "deleting"}, 202)


async def export(request: web.Request, principal: Principal) -> web.StreamResponse:
    """Everything that is stored about the user, as one JSON document. A document that is whole ends with `"complete":
    true`; if a service fails in the middle, the connection breaks and the document is no valid JSON."""
    pieces = request.app[ACCOUNT_EXPORT].document(principal.user_id, str(wire_time(request.app[NOW]())))
    return await send_export(request, principal.user_id, pieces)


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


_DELETION_SECONDS: Final = 25.0
"""How long a request waits for the deletion to be complete. The rest is done in the background."""

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
    Route(
        "DELETE",
        "/api/v1/user",
        "account",
        delete_user,
        "user",
        "Delete the account",
        {
            204: Reply("The account is deleted."),
            202: Reply("The account is closed, and the rest is deleted in the background.", schemas.Deleting),
        },
        errors=(ErrorCode.REAUTHENTICATION_REQUIRED, ErrorCode.CAPTCHA_FAILED, ErrorCode.LAST_ADMIN),
        limited=True,
    ),
    Route(
        "GET",
        "/api/v1/user/export",
        "account",
        export,
        "user",
        "Export everything that is stored about the user",
        {200: Reply("The document.", media="application/json")},
        errors=(ErrorCode.NOT_FOUND, ErrorCode.AGENT_UNAVAILABLE, ErrorCode.LETTA_UNAVAILABLE),
        rate="exports",
    ),
)
