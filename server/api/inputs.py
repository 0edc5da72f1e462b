"""Reading what a client sent, body, query and path, into validated models; anything wrong is one clear 400."""

import asyncio
from typing import TypeVar
from urllib.parse import unquote_to_bytes
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from server.protocol.codes import ErrorCode
from server.protocol.errors import FieldError, PlatformError
from server.protocol.frames import field_errors
from server.protocol.limits import Limits

BODY_BYTES = 512 * 1024
"""Room for the longest message with every character written as JSON escapes, of 12 bytes each beyond the BMP."""
BODY_SECONDS = 30.0

M = TypeVar("M", bound=BaseModel)


async def read_body(request: web.Request, model: type[M]) -> M:
    """The JSON body as `model`; an empty body reads as `{}`. Raises PlatformError(invalid_request | too_large)."""
    raw = await _read(request)
    if not raw:
        raw = b"{}"
    elif request.content_type != "application/json":
        raise PlatformError(ErrorCode.INVALID_REQUEST, "Send the body as Content-Type: application/json.")
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as cause:
        raise PlatformError(ErrorCode.INVALID_REQUEST, f"The body is not valid JSON in UTF-8: {cause}.") from cause
    if not isinstance(document, dict):
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The body must be a JSON object.")
    try:
        return model.model_validate_json(raw, strict=True)
    except ValidationError as cause:
        raise _refusal(cause, "The body") from cause


def read_query(request: web.Request, model: type[M]) -> M:
    """The query string as `model`. Raises PlatformError(invalid_request)."""
    try:
        unquote_to_bytes(request.rel_url.raw_query_string).decode()
    except UnicodeDecodeError as cause:
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The query is not valid UTF-8.") from cause
    names = [name for name, _ in request.query.items()]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        errors = tuple(FieldError(f"/{name}", "must be given once") for name in sorted(repeated))
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The query repeats a parameter.", errors=errors)
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as cause:
        raise _refusal(cause, "The query") from cause


def path_id(request: web.Request, name: str) -> UUID:
    """An id in the path. What is no id names nothing: raises PlatformError(not_found)."""
    try:
        return UUID(request.match_info[name])
    except ValueError as cause:
        raise PlatformError(ErrorCode.NOT_FOUND) from cause


async def _read(request: web.Request) -> bytes:
    if (request.content_length or 0) > BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > BODY_BYTES:
                    raise _too_large()
    except TimeoutError as cause:
        raise PlatformError(ErrorCode.INVALID_REQUEST, f"The body took over {BODY_SECONDS:g} s to arrive.") from cause
    except web.RequestPayloadError as cause:
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The body is damaged.") from cause
    return bytes(body)


def _too_large() -> PlatformError:
    return PlatformError(ErrorCode.TOO_LARGE, f"A request body has at most {BODY_BYTES} bytes.")


def _refusal(cause: ValidationError, what: str) -> PlatformError:
    errors = field_errors(cause)
    if any(e["type"] == "string_too_long" and e["loc"] == ("content",) for e in cause.errors(include_input=False)):
        message = f"A message has at most {Limits.content_characters} characters."
        return PlatformError(ErrorCode.TOO_LARGE, message, errors=errors)
    first = errors[0]
    return PlatformError(
        ErrorCode.INVALID_REQUEST, f"{what} is not valid: {first.pointer or '/'}: {first.detail}.", errors=errors
    )
