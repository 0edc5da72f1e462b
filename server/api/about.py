"""What a page needs to know before anybody has signed in: from settings alone, and without secrets."""

from aiohttp import web

from server import __version__
from server.api import schemas
from server.http.app_keys import AUTHENTICATOR, SETTINGS
from server.http.responses import json_response
from server.http.routes import Reply, Route


async def about(request: web.Request) -> web.Response:
    """The server's version, the agents' model, who may register, and in development a user to try it with."""
    settings, gate = request.app[SETTINGS], request.app[AUTHENTICATOR].gate
    demo = settings.demo_user
    return json_response(
        {
            "version": __version__,
            "environment": settings.environment,
            "model": {"name": settings.agent_model, "is_demo": settings.demo_model},
            "sign_up": {
                "is_open": gate.registration != "closed",
                "domains": list(gate.registration) if isinstance(gate.registration, tuple) else None,
                "allows_anonymous": gate.anonymous_allowed,
            },
            "demo_user": None if demo is None else {"email": demo.email, "password": demo.password},
        }
    )


ROUTES = (
    Route(
        "GET",
        "/api/v1/about",
        "public",
        about,
        "operations",
        "What this server is",
        {200: Reply("What a page shows before sign-in.", schemas.About)},
    ),
)
