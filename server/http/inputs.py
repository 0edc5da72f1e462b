"""Reads body, query and path of a request into validated models; invalid input is refused with one error."""

import asyncio
from collections import Counter
from typing import Final, TypeVar
from urllib.parse import unquote_to_bytes
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from server.protocol.codes import ErrorCode
from server.protocol.errors import FieldError, PlatformError
from server.protocol.frames import field_errors, unknown_names
from server.protocol.limits import Limits

BODY_BYTES: Final = 8 * 1024
"""The longest body except those with texts: the longest e-mail address, password and name fit, also escaped."""
TEXT_BYTES: Final = 512 * 1024
"""Enough for the longest message with each character as JSON escapes: 12 bytes each outside the BMP."""
QUERY_BYTES: Final = 2 * 1024
"""The longest query except those with search words: tickets, cursors, numbers and days fit."""
SEARCH_BYTES: Final = 8 * 1024
_PARAMETERS: Final = 32
BODY_SECONDS: Final = 30.0

M = TypeVar("M", bound=BaseModel)


async def read_body(request: web.Request, model: type[M], max_bytes: int = BODY_BYTES) -> M:
    """The JSON body as `model`; an empty body reads as `{}`. Raises PlatformError(invalid_request | too_large)."""
    raw = await _read(request, max_bytes)
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
    if unknown := unknown_names(document, model.model_fields.keys()):
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The body has too many unknown fields.", errors=unknown)
    try:
        return model.model_validate_json(raw, strict=True)
    except ValidationError as cause:
        raise _refusal(cause, "The body") from cause


def limit_query(request: web.Request, max_bytes: int = QUERY_BYTES) -> None:
    """Refuse an oversized query before it is parsed, since parsing takes some microseconds for each parameter.

    Raises PlatformError(invalid_request).
    """
    raw = request.rel_url.raw_query_string
    if len(raw) > max_bytes:
        raise PlatformError(ErrorCode.INVALID_REQUEST, f"The query of this address has at most {max_bytes} bytes.")
    if raw.count("&") >= _PARAMETERS:
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The query has too many parameters.")


def read_query(request: web.Request, model: type[M]) -> M:
    """The query string as `model`. Raises PlatformError(invalid_request)."""
    try:
        unquote_to_bytes(request.rel_url.raw_query_string).decode()
    except UnicodeDecodeError as cause:
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The query is not valid UTF-8.") from cause
    repeated = [name for name, times in Counter(name for name, _ in request.query.items()).items() if times > 1]
    if repeated:
        errors = tuple(FieldError(f"/{name}", "must be given once") for name in sorted(repeated))
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The query repeats a parameter.", errors=errors)
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as cause:
        raise _refusal(cause, "The query") from cause


def path_id(request: web.Request, name: str) -> UUID:
    """An id in the path. Raises PlatformError(not_found) if it is not a UUID."""
    try:
        return UUID(request.match_info[name])
    except ValueError as cause:
        raise PlatformError(ErrorCode.NOT_FOUND) from cause


async def _read(request: web.Request, max_bytes: int) -> bytes:
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError as cause:
        raise PlatformError(ErrorCode.INVALID_REQUEST, f"The body took over {BODY_SECONDS:g} s to arrive.") from cause
    except web.RequestPayloadError as cause:
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The body is damaged.") from cause
    return bytes(body)


def _too_large(max_bytes: int) -> PlatformError:
    return PlatformError(ErrorCode.TOO_LARGE, f"The body of this request has at most {max_bytes} bytes.")


def _refusal(cause: ValidationError, what: str) -> PlatformError:
    errors = field_errors(cause)
    if any(e["type"] == "string_too_long" and e["loc"] == ("content",) for e in cause.errors(include_input=False)):
        message = f"A message has at most {Limits.content_characters} characters."
        return PlatformError(ErrorCode.TOO_LARGE, message, errors=errors)
    first = errors[0]
    return PlatformError(
        ErrorCode.INVALID_REQUEST, f"{what} is not valid: {first.pointer or '/'}: {first.detail}.", errors=errors
    )
