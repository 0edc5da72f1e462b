"""The table of all endpoints, and their installation in an application."""

from typing import Final

from aiohttp import web

from server.api import (
    admin_reports,
    admin_users,
    agent,
    api_keys,
    asyncapi,
    auth,
    chat,
    credentials,
    history,
    memory,
    openapi,
    ops,
    sign_ins,
    usage,
    user,
)
from server.http import middlewares
from server.http.routes import Route, add_routes

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
    *ops.ROUTES,
)


def install(app: web.Application) -> None:
    """Add middlewares, routes and the documents that describe them to `app`. The wiring sets the keys of `app_keys`."""
    middlewares.install(app)
    add_routes(app, ROUTES)
    app[ops.OPENAPI] = openapi.document(ROUTES, ops.VERSION)
    app[ops.ASYNCAPI] = asyncapi.document(ops.VERSION)
