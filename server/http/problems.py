"""Errors as `application/problem+json` (RFC 9457): the only place where an error becomes an HTTP response."""

from collections.abc import Mapping

from aiohttp import web

from server.http.responses import to_json
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Json, Turn

MEDIA_TYPE = "application/problem+json"


def problem(
    error: PlatformError,
    request_id: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    turn: Turn | None = None,
) -> web.Response:
    """The response for `error`. `status` overrides that of the error's code; `turn` is the turn that failed."""
    status = status or error.rule.status
    body = members(error, request_id, status)
    response_headers = dict(headers or {})
    if (seconds := error.retry_after_seconds) is not None:
        body["retry_after"] = seconds
        response_headers["Retry-After"] = str(seconds)
    if error.code is ErrorCode.UNAUTHORIZED:
        response_headers["WWW-Authenticate"] = 'Bearer realm="chat"'
    elif error.code is ErrorCode.TOKEN_EXPIRED:
        response_headers["WWW-Authenticate"] = 'Bearer realm="chat", error="invalid_token"'
    if turn is not None:
        body["turn"] = turn.wire()
        body |= turn.error.budget() if turn.error else {}
    return web.Response(body=to_json(body), status=status, content_type=MEDIA_TYPE, headers=response_headers)


def members(error: PlatformError, request_id: str, status: int) -> Json:
    """What the body of every error has."""
    return {
        "type": f"/docs#{error.code}",
        "title": error.rule.title,
        "status": status,
        "detail": error.message,
        "code": error.code,
        "retryable": error.retryable,
        "request_id": request_id,
        "errors": [{"pointer": field.pointer, "detail": field.detail} for field in error.errors],
        **error.members,
    }


def from_http_exception(cause: web.HTTPException) -> PlatformError:
    """The protocol's error for one that aiohttp raised (no such path, wrong method, too large …)."""
    match cause:
        case web.HTTPNotFound():
            return PlatformError(ErrorCode.NOT_FOUND)
        case web.HTTPMethodNotAllowed():
            return PlatformError(ErrorCode.METHOD_NOT_ALLOWED)
        case web.HTTPRequestEntityTooLarge():
            return PlatformError(ErrorCode.TOO_LARGE)
        case web.HTTPClientError():
            return PlatformError(ErrorCode.INVALID_REQUEST, f"{cause.reason}.")
        case _:
            return PlatformError(ErrorCode.INTERNAL_ERROR)
