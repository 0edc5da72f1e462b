"""One declaration per endpoint, for routing, access, authentication, input validation and the OpenAPI document.

Each route says beside its path who may use it. Here alone that is enforced: `authenticate` reads it from the request.

A handler's parameters (`principal`, `body`, `query`, an id of the path) define its input, so the documentation and the
validation cannot differ.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal, get_type_hints
from uuid import UUID

import structlog
from aiohttp import web
from pydantic import BaseModel

from server.http.app_keys import AUTH_LIMITER, AUTHENTICATOR, CLIENT_ADDRESSES, LIMITER
from server.http.inputs import BODY_BYTES, QUERY_BYTES, limit_query, path_id, read_body, read_query
from server.http.rate_limits import count_request
from server.ip_addresses import network_of
from server.ports import Access, Principal
from server.protocol.codes import ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.rates import RateName

Handler = Callable[..., Awaitable[web.StreamResponse]]

PRINCIPAL: Final = web.RequestKey("principal", Principal)
ACCESS: Final = web.RequestKey[Access]("access")
"""The access of the route that serves the request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One response of an endpoint. Without `model` it has no body, or a body of the type `media`."""

    description: str
    model: type[BaseModel] | None = None
    media: str | None = None
    stream: bool = False
    """Also sent as text/event-stream."""


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint. `access`: who may use it."""

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    access: Access
    handler: Handler
    tag: str
    summary: str
    replies: Mapping[int, Reply]
    errors: tuple[ErrorCode, ...] = ()
    credential: Literal["header", "ticket", "socket"] = "header"
    """Where the credential is: in the Authorization header; or there or as a ticket in the query, which an invalid
    request does not spend; or in one of the places of a WebSocket. For the last two the handler authenticates."""
    limited: bool = False
    """Subject to the rate limit of sign-in endpoints per address."""
    rate: RateName | None = None
    """A limit per user beside the one of all requests."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Request headers that this endpoint reads, with their descriptions."""
    parameters: type[BaseModel] | None = None
    """Query parameters of a handler that parses the query itself."""
    body_bytes: int = BODY_BYTES
    """The longest body this endpoint accepts."""
    query_bytes: int = QUERY_BYTES

    @property
    def handler_parameters(self) -> dict[str, Any]:
        """The handler's parameters and their types."""
        return _parameters_of(self.handler)

    @property
    def body(self) -> type[BaseModel] | None:
        return self.handler_parameters.get("body")

    @property
    def query(self) -> type[BaseModel] | None:
        return self.handler_parameters.get("query", self.parameters)

    @property
    def path_parameters(self) -> dict[str, Any]:
        return {name: kind for name, kind in self.handler_parameters.items() if f"{{{name}}}" in self.path}


@cache
def _parameters_of(handler: Callable[..., Any]) -> dict[str, Any]:
    hints = get_type_hints(handler)
    return {name: hints[name] for name in inspect.signature(handler).parameters}


def add_routes(app: web.Application, routes: Iterable[Route]) -> None:
    """Serve `routes`. Public GET endpoints also accept HEAD."""
    for route in routes:
        bound = _bind(route)
        app.router.add_route(route.method, route.path, bound)
        if route.method == "GET" and route.access == "public":
            app.router.add_route("HEAD", route.path, bound)


def _bind(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    parameters, body, ids = route.handler_parameters, route.body, route.path_parameters
    query = parameters.get("query")
    reads_query = route.query is not None

    async def endpoint(request: web.Request) -> web.StreamResponse:
        request[ACCESS] = route.access
        given: dict[str, Any] = {"request": request} if "request" in parameters else {}
        if reads_query:
            limit_query(request, route.query_bytes)
        if route.limited:
            await request.app[AUTH_LIMITER].admit(request)
        if route.access != "public" and route.credential == "header":
            principal = await authenticate(request)
            if route.rate is not None:
                await request.app[LIMITER].take(route.rate, principal.user_id)
            if "principal" in parameters:
                given["principal"] = principal
        for name, kind in ids.items():
            given[name] = path_id(request, name) if kind is UUID else request.match_info[name]
        if query is not None:
            given["query"] = read_query(request, query)
        if body is not None:
            given["body"] = await read_body(request, body, route.body_bytes)
        return await route.handler(**given)

    return endpoint


async def authenticate(
    request: web.Request, *, ticket_allowed: bool = False, last_seen: EventCursor | None = None
) -> Principal:
    """Authenticate for the route's access: by the Authorization header, else by a ticket, which is spent.

    Raises PlatformError.
    `last_seen` is the Last-Event-ID of an EventSource that reconnects: its proof makes a spent ticket valid again.
    """
    authenticator, access = request.app[AUTHENTICATOR], request[ACCESS]
    header = request.headers.get("Authorization")
    if ticket_allowed and header is None and "ticket" in request.query:
        if last_seen is not None and last_seen.proof is not None:
            principal = await authenticator.spent_ticket(request.query["ticket"], "chat", last_seen, access)
        else:
            principal = await authenticator.ticket(request.query["ticket"], "chat", access)
    else:
        principal = await authenticator.header(header, access, network_of(request.app[CLIENT_ADDRESSES].of(request)))
    await count_request(request.app[LIMITER], principal)
    request[PRINCIPAL] = principal
    structlog.contextvars.bind_contextvars(user_id=principal.user_id)
    return principal
