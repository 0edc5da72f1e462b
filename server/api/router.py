"""The table of all endpoints, and their installation in an application."""

from collections.abc import Callable
from functools import cache
from typing import Final

from aiohttp import web

from server.api import (
    about,
    admin_health,
    admin_reports,
    admin_users,
    agent,
    api_keys,
    asyncapi,
    auth,
    chat,
    console,
    credentials,
    development,
    history,
    memory,
    openapi,
    ops,
    sign_ins,
    usage,
    user,
)
from server.http import middlewares
from server.http.app_keys import SETTINGS
from server.http.routes import Route, add_routes
from server.protocol.shapes import Json

ROUTES: Final[tuple[Route, ...]] = (
    *auth.ROUTES,
    *credentials.ROUTES,
    *sign_ins.ROUTES,
    *chat.ROUTES,
    *history.ROUTES,
    *agent.ROUTES,
    *memory.ROUTES,
    *user.ROUTES,
    *api_keys.ROUTES,
    *usage.ROUTES,
    *admin_users.ROUTES,
    *admin_reports.ROUTES,
    *admin_health.ROUTES,
    *about.ROUTES,
    *ops.ROUTES,
)


_OPENAPI: Final[Callable[[], Json]] = cache(lambda: openapi.document(ROUTES, ops.VERSION))
_ASYNCAPI: Final[Callable[[], Json]] = cache(lambda: asyncapi.document(ops.VERSION))


def install(app: web.Application) -> None:
    """Add middlewares, routes, and what describes them, to `app`. The wiring sets the keys of `app_keys`, and before
    this `console.CONSOLE`."""
    middlewares.install(app)
    add_routes(app, ROUTES)
    if not app[SETTINGS].is_production:
        add_routes(app, development.ROUTES)
    console.install(app)
    app[ops.OPENAPI] = _OPENAPI
    app[ops.ASYNCAPI] = _ASYNCAPI
