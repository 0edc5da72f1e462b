"""Operational endpoints without authentication: health, readiness, metrics, and the API's description."""

import asyncio
import gzip
import secrets
from collections.abc import Callable
from importlib.resources import files
from typing import Final

from aiohttp import web

from server import __version__
from server.api import console, schemas
from server.config.settings import MAIL_LINK_PATH
from server.http.app_keys import HUB, METRICS, READINESS
from server.http.content_negotiation import accepts_gzip
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.http.security_headers import PAGE_POLICY, reference_policy
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Json

VERSION: Final = __version__
OPENAPI: Final = web.AppKey[Callable[[], Json]]("openapi")
ASYNCAPI: Final = web.AppKey[Callable[[], Json]]("asyncapi")
"""Make the documents, at their first use: that takes a tenth of a second, so it is done in a thread."""

_PAGES: Final = files("server.api") / "pages"
_MEDIA_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_READABLE: Final = frozenset({"style.css", "docs.js", "callback.css", "callback.js", "callback_words.js"})
_REFERENCE: Final = "scalar.js"
"""The library of the API reference, which is stored compressed. scripts/vendor_scalar.py updates it."""


async def health() -> web.Response:
    """The process is alive. Its dependencies are not checked."""
    return json_response({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """Whether to route traffic here. With a dependency down, the status is `degraded`: the rest of the API works."""
    report = await request.app[READINESS].report()
    return json_response(report.wire(VERSION), 200 if report.takes_traffic else 503)


async def metrics(request: web.Request) -> web.Response:
    measured = request.app[METRICS]
    return web.Response(body=measured.text(request.app[HUB].counts), headers={"Content-Type": measured.CONTENT_TYPE})


async def openapi(request: web.Request) -> web.Response:
    return json_response(await asyncio.to_thread(request.app[OPENAPI]))


async def asyncapi(request: web.Request) -> web.Response:
    return json_response(await asyncio.to_thread(request.app[ASYNCAPI]))


async def docs() -> web.Response:
    """The API reference. Its library writes style elements, which this page alone allows, by a nonce."""
    nonce = secrets.token_urlsafe(16)
    text = (_PAGES / "docs.html").read_text(encoding="utf-8").replace("{nonce}", nonce)
    return _document(text, "text/html", reference_policy(nonce))


async def index(request: web.Request) -> web.Response:
    """The console, or without one a plain page."""
    return console.index(request) or _page("index.html")


async def callback(request: web.Request) -> web.Response:
    """The page to which links in e-mails lead. Its script reads them: the server does not see a fragment."""
    has_console = "on" if request.app[console.CONSOLE] else "off"
    text = (_PAGES / "callback.html").read_text(encoding="utf-8").replace("{console}", has_console)
    return _document(text, "text/html", PAGE_POLICY)


async def page(request: web.Request, name: str) -> web.Response:
    """A style sheet or script of the pages."""
    if name == _REFERENCE:
        return _library(request)
    if name not in _READABLE:
        raise PlatformError(ErrorCode.NOT_FOUND)
    return _page(name)


def _page(name: str) -> web.Response:
    text = (_PAGES / name).read_text(encoding="utf-8")
    return _document(text, _MEDIA_TYPES[name.rpartition(".")[2]], PAGE_POLICY)


def _document(text: str, media_type: str, policy: str) -> web.Response:
    return web.Response(
        text=text, content_type=media_type, charset="utf-8", headers={"Content-Security-Policy": policy}
    )


def _library(request: web.Request) -> web.Response:
    """Sent as it is stored to clients that read gzip, as every browser does."""
    body = (_PAGES / f"{_REFERENCE}.gz").read_bytes()
    headers = {"Cache-Control": "public, max-age=3600", "Vary": "Accept-Encoding"}
    if accepts_gzip(request.headers.get("Accept-Encoding")):
        headers["Content-Encoding"] = "gzip"
    else:
        body = gzip.decompress(body)
    return web.Response(body=body, content_type=_MEDIA_TYPES["js"], charset="utf-8", headers=headers)


_TAG: Final = "operations"

ROUTES = (
    Route(
        "GET",
        "/health",
        "public",
        health,
        _TAG,
        "Liveness",
        {200: Reply("The process is alive.", schemas.Health)},
    ),
    Route(
        "GET",
        "/ready",
        "public",
        ready,
        _TAG,
        "Readiness",
        {200: Reply("Ready or degraded.", schemas.Ready), 503: Reply("Starting or draining.", schemas.Ready)},
    ),
    Route(
        "GET",
        "/metrics",
        "public",
        metrics,
        _TAG,
        "Metrics for Prometheus",
        {200: Reply("The exposition format.", media="text/plain")},
    ),
    Route(
        "GET",
        "/openapi.json",
        "public",
        openapi,
        _TAG,
        "This document",
        {200: Reply("OpenAPI 3.1.", media="application/json")},
    ),
    Route(
        "GET",
        "/asyncapi.json",
        "public",
        asyncapi,
        _TAG,
        "What the WebSocket and the event streams carry",
        {200: Reply("AsyncAPI 3.1.", media="application/json")},
    ),
    Route("GET", "/docs", "public", docs, _TAG, "API reference", {200: Reply("A page.", media="text/html")}),
    Route(
        "GET",
        MAIL_LINK_PATH,
        "public",
        callback,
        _TAG,
        "Where the links in e-mails lead",
        {200: Reply("A page.", media="text/html")},
    ),
    Route(
        "GET",
        "/",
        "public",
        index,
        _TAG,
        "The console",
        {200: Reply("A page.", media="text/html"), 304: Reply("The page that the client has.")},
    ),
    Route(
        "GET",
        "/pages/{name}",
        "public",
        page,
        _TAG,
        "Parts of the pages",
        {200: Reply("A style sheet or script.", media="text/plain")},
        errors=(ErrorCode.NOT_FOUND,),
    ),
)
