"""A server with scripted answers, for failures that a real Letta does not produce on command."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from server.adapters.letta.client import LettaClient, Timeouts
from server.ports import AgentHandle, OutgoingMessage
from server.protocol.codes import ErrorCode
from server.resilience import Breaker

MEMBER = "user-00000000-0000-4000-8000-000000000001"
AGENT = AgentHandle(MEMBER, "agent-1", "conv-1")
HELLO = [OutgoingMessage("user", "Hello")]
RECORDINGS = Path(__file__).parent / "recordings"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class ScriptedLetta:
    """Answers every request with `answer` and records it."""

    answer: Answer | None = None
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[object] = field(default_factory=list)
    breaker: Breaker = field(default_factory=lambda: Breaker("letta", ErrorCode.LETTA_UNAVAILABLE))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.json() if request.can_read_body else None)
        assert self.answer is not None
        return await self.answer(request)


@asynccontextmanager
async def scripted_letta(timeouts: Timeouts | None = None) -> AsyncIterator[tuple[ScriptedLetta, LettaClient]]:
    """The server and a client of it."""
    letta = ScriptedLetta()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", letta.handle)
    server = TestServer(app)
    await server.start_server()
    client = LettaClient(
        str(server.make_url("")), SecretStr("password"), letta.breaker, timeouts or Timeouts(), attempts=1
    )
    try:
        yield letta, client
    finally:
        await client.aclose()
        await server.close()


def says(data: object, status: int = 200) -> Answer:
    """Answers with JSON."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response(data, status=status)

    return answer


def says_by_method(got: object, posted: object, status: int) -> Answer:
    """Answers a GET with `got`, anything else with `posted` and `status`."""
    to_get, to_post = says(got), says(posted, status)

    async def answer(request: web.Request) -> web.StreamResponse:
        return await (to_get if request.method == "GET" else to_post)(request)

    return answer


def streams(*pieces: bytes, then: Callable[[web.Request], Awaitable[None]] | None = None) -> Answer:
    """Streams the pieces, does `then`, and ends the body."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if then is not None:
            await then(request)
        return response

    return answer


async def cut(request: web.Request) -> None:
    """Break the connection."""
    assert request.transport is not None
    request.transport.abort()


def recorded(name: str) -> bytes:
    return (RECORDINGS / f"{name}.sse").read_bytes()
