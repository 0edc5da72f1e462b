"""Operational endpoints without authentication: health, readiness, metrics, and the API's description."""

from importlib.resources import files
from typing import Final

from aiohttp import web

from server import __version__
from server.api import schemas
from server.config.settings import MAIL_LINK_PATH
from server.http.app_keys import HUB, METRICS, READINESS
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.http.security_headers import PAGE_POLICY
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Json

VERSION: Final = __version__
OPENAPI: Final = web.AppKey[Json]("openapi")
ASYNCAPI: Final = web.AppKey[Json]("asyncapi")

_PAGES: Final = files("server.api") / "pages"
_MEDIA_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_READABLE: Final = frozenset({"style.css", "docs.js", "callback.js"})


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
    return json_response(request.app[OPENAPI])


async def asyncapi(request: web.Request) -> web.Response:
    return json_response(request.app[ASYNCAPI])


async def docs() -> web.Response:
    return _page("docs.html")


async def index() -> web.Response:
    return _page("index.html")


async def callback() -> web.Response:
    """The page to which links in e-mails lead. Its script reads them: the server does not see a fragment."""
    return _page("callback.html")


async def page(name: str) -> web.Response:
    """A style sheet or script of the pages."""
    if name not in _READABLE:
        raise PlatformError(ErrorCode.NOT_FOUND)
    return _page(name)


def _page(name: str) -> web.Response:
    return web.Response(
        text=(_PAGES / name).read_text(encoding="utf-8"),
        content_type=_MEDIA_TYPES[name.rpartition(".")[2]],
        charset="utf-8",
        headers={"Content-Security-Policy": PAGE_POLICY},
    )


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
        {200: Reply("AsyncAPI 3.0.", media="application/json")},
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
    Route("GET", "/", "public", index, _TAG, "What this is", {200: Reply("A page.", media="text/html")}),
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
