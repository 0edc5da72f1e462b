"""The middlewares of every request: request id, log line and metrics; errors as problems; CORS.

Headers are added when a response is prepared, so that streams and sockets carry them as well.
"""

import re
import time
import uuid
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from server.http.app_keys import CLIENT_ADDRESSES, METRICS, ORIGINS, SETTINGS
from server.http.problems import from_http_exception, problem
from server.http.security_headers import SECURITY_HEADERS
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

REQUEST_ID: Final = web.RequestKey("request_id", str)
SERVER_NAME: Final = "chat"
"""Replaces aiohttp's `Server` header, which reveals the versions of aiohttp and Python."""
HEADERS_BYTES: Final = 64 * 1024
"""The limit of all headers of a request together; a single one may have half of it."""
_SENT_STATUS: Final = web.RequestKey("answering", int)
"""The status of a response whose headers are sent."""
_ACCEPTED_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_OWN_HEADERS: Final = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, X-Request-ID"
"""Allowed if a preflight names no headers."""
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_ALLOWED_METHODS: Final = "GET, POST, PATCH, DELETE, OPTIONS"
_EXPOSED_HEADERS: Final = "X-Request-ID, Retry-After, Location, Preference-Applied, Content-Disposition"
_PREFLIGHT_SECONDS: Final = "7200"
_ONLY_HTTPS: Final = "max-age=31536000"
"""Browsers use only HTTPS for a year. Without `includeSubDomains`: other hosts of the domain may serve HTTP."""


def install(app: web.Application) -> None:
    """Add the middlewares, outermost first, and the header signal to `app`."""
    app.middlewares.extend((observed, errors_as_problems, cross_origin))
    app.on_response_prepare.append(_add_headers)


@web.middleware
async def observed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Set the request's id; at its end log one line and update the metrics.

    The query string is never logged: it may hold a ticket or search words.
    """
    offered = request.headers.get("X-Request-ID", "")
    request_id = offered if _ACCEPTED_ID.fullmatch(offered) else uuid.uuid4().hex
    request[REQUEST_ID] = request_id
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)
    metrics, route = request.app[METRICS], _route(request)
    method = request.method if request.method in ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS") else "other"
    began, status = time.perf_counter(), None
    metrics.requests_open.inc()
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        status = status or request.get(_SENT_STATUS, 499)  # nginx's status for a client that disconnected first
        seconds = time.perf_counter() - began
        metrics.requests_open.dec()
        metrics.requests.labels(method, route, status).inc()
        metrics.request_seconds.labels(method, route).observe(seconds)
        log.info(
            "http.request",
            method=request.method,
            path=request.rel_url.raw_path[:200],
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 1),
            client=request.app[CLIENT_ADDRESSES].of(request),
        )
        structlog.contextvars.clear_contextvars()


@web.middleware
async def errors_as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into application/problem+json. An unexpected one is logged once, with its traceback.

    After the headers are sent, the status cannot change: the error then ends the connection.
    """
    try:
        _limit_headers(request)
        return await handler(request)
    except web.HTTPException as cause:
        if cause.status < 400 or request.get(_SENT_STATUS):
            raise
        allow = {name: cause.headers[name] for name in ("Allow",) if name in cause.headers}
        return problem(from_http_exception(cause), request[REQUEST_ID], status=cause.status, headers=allow)
    except PlatformError as error:
        if request.get(_SENT_STATUS):
            raise
        return problem(error, request[REQUEST_ID])
    except ConnectionError:
        raise
    except Exception as cause:
        if (refusal := _platform_error_in(cause)) is not None and not request.get(_SENT_STATUS):
            return problem(refusal, request[REQUEST_ID])
        log.exception("http.failed", method=request.method, route=_route(request))
        if request.get(_SENT_STATUS):
            raise
        return problem(PlatformError(ErrorCode.INTERNAL_ERROR), request[REQUEST_ID])


def _limit_headers(request: web.Request) -> None:
    if sum(len(name) + len(value) for name, value in request.raw_headers) > HEADERS_BYTES:
        message = f"The headers of a request have at most {HEADERS_BYTES // 1024} KiB."
        raise PlatformError(ErrorCode.INVALID_REQUEST, message)


def _platform_error_in(cause: BaseException) -> PlatformError | None:
    """The first error of a TaskGroup that failed with PlatformErrors only; else None."""
    if not isinstance(cause, ExceptionGroup) or cause.split(PlatformError)[1] is not None:
        return None
    leaf: BaseException = cause
    while isinstance(leaf, ExceptionGroup):
        leaf = leaf.exceptions[0]
    return leaf if isinstance(leaf, PlatformError) else None


@web.middleware
async def cross_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a browser's preflight request. `_add_headers` allows the page to read the actual response."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return await handler(request)
    if not _origin_allowed(request):
        raise request.app[ORIGINS].refusal(request.headers.get("Origin", ""))
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": _ALLOWED_METHODS,
            "Access-Control-Allow-Headers": _requested_headers(request),
            "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
            "Vary": "Access-Control-Request-Headers",
        },
    )


def _requested_headers(request: web.Request) -> str:
    """The header names the page asks for: tracing and other SDKs add theirs to every request.

    Allowing any name is safe: the origin is trusted, and no cookies authenticate a request."""
    asked = ",".join(request.headers.getall("Access-Control-Request-Headers", ()))
    names = [name for part in asked.split(",") if _HEADER_NAME.fullmatch(name := part.strip())]
    return ", ".join(names) or _OWN_HEADERS


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    request[_SENT_STATUS] = response.status
    response.headers["Server"] = SERVER_NAME
    response.headers["X-Request-ID"] = request.get(REQUEST_ID, "")
    if response.status >= 200:  # not for the handshake of a socket
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
    if request.app[SETTINGS].is_production:
        response.headers["Strict-Transport-Security"] = _ONLY_HTTPS
    response.headers.add("Vary", "Origin")
    if "Origin" in request.headers and _origin_allowed(request):
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS


def _origin_allowed(request: web.Request) -> bool:
    return request.app[ORIGINS].allows(request.headers.get("Origin", ""))


def _route(request: web.Request) -> str:
    """The path's pattern, so that ids do not become metric labels; `unknown` for paths without a route."""
    resource = request.match_info.route.resource
    return "unknown" if resource is None else resource.canonical
