"""The user's API keys: created, listed, revoked."""

from uuid import UUID

import structlog
from aiohttp import web

from server.api import schemas
from server.api.models import CreateApiKey
from server.http.app_keys import API_KEYS, CREDENTIALS, HUB, NOW, READS
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.ports import ApiKey, Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import FieldError, PlatformError
from server.protocol.shapes import Json, wire_time

log = structlog.get_logger(__name__)


async def create(request: web.Request, principal: Principal, body: CreateApiKey) -> web.Response:
    """Create an API key. The response is the only one that has it. Of a user's keys at most ten are valid; one that an
    API key creates can neither do more nor live longer than that one."""
    if body.expires_at is not None and body.expires_at <= request.app[NOW]():
        raise PlatformError(
            ErrorCode.INVALID_REQUEST, "expires_at is in the past.", errors=(FieldError("/expires_at", "is past"),)
        )
    key, text = await request.app[API_KEYS].create(principal, body.name, frozenset(body.scopes), body.expires_at)
    return json_response({"key": text.get_secret_value(), **_wire(key)}, status=201)


async def keys(request: web.Request, principal: Principal) -> web.Response:
    """The user's API keys, the newest first, without their secret parts."""
    return json_response({"data": [_wire(key) for key in await request.app[READS].api_keys(principal)]})


async def revoke(request: web.Request, principal: Principal, key_id: UUID) -> web.Response:
    """Revoke an API key: it is refused at once, and what was opened with it ends."""
    if not await request.app[CREDENTIALS].revoke_key(principal.user_id, str(key_id)):
        raise PlatformError(ErrorCode.NOT_FOUND)
    log.info("api_key.revoked", key_id=str(key_id))
    request.app[HUB].recheck(principal.user_id)
    return web.Response(status=204)


def _wire(key: ApiKey) -> Json:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": sorted(key.scopes),
        "created_at": wire_time(key.created_at),
        "expires_at": wire_time(key.expires_at),
        "last_used_at": wire_time(key.last_used_at),
    }


ROUTES = (
    Route(
        "POST",
        "/api/v1/user/api-keys",
        "account",
        create,
        "user",
        "Create an API key",
        {201: Reply("The key, shown once.", schemas.NewApiKey)},
        errors=(ErrorCode.TOO_MANY_KEYS,),
    ),
    Route(
        "GET",
        "/api/v1/user/api-keys",
        "account",
        keys,
        "user",
        "The user's API keys",
        {200: Reply("The keys.", schemas.ApiKeys)},
    ),
    Route(
        "DELETE",
        "/api/v1/user/api-keys/{key_id}",
        "account",
        revoke,
        "user",
        "Revoke an API key",
        {204: Reply("Revoked.")},
        errors=(ErrorCode.NOT_FOUND,),
    ),
)
