"""All endpoints in one table, and the one call that serves them."""

from typing import Final

from aiohttp import web

from server.api import agent, auth, chat, ops, usage, user
from server.api.openapi import document
from server.http import middlewares
from server.http.routes import Route, add_routes

ROUTES: Final[tuple[Route, ...]] = (
    *auth.ROUTES,
    *chat.ROUTES,
    *agent.ROUTES,
    *user.ROUTES,
    *usage.ROUTES,
    *ops.ROUTES,
)


def install(app: web.Application) -> None:
    """Serve the API on `app`: middlewares, routes and their description. The keys of `app_keys` are set elsewhere."""
    middlewares.install(app)
    add_routes(app, ROUTES)
    app[ops.OPENAPI] = document(ROUTES, ops.VERSION)
