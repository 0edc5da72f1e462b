"""HTTP connections as this server holds them: room for long tokens, nothing of a malformed request repeated, and no
place for a client that connects and then says nothing."""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from server.api.middlewares import SERVER_NAME
from server.api.problems import problem
from server.frame_gate import GatedHandler
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

HEADER_BYTES: Final = 32 * 1024
"""The longest header: an access token with many claims outgrows aiohttp's 8 KiB."""

BACKLOG: Final = 2048

REQUEST_SECONDS: Final = 30.0
"""Within which the first request of a connection must have come, headers and all. aiohttp waits an hour for it, which
is right between two requests (proxies keep connections for as long), and is for ever where the client has vanished."""


@asynccontextmanager
async def serving(app: web.Application, new_socket: Callable[[], socket.socket]) -> AsyncIterator[None]:
    """Start `app`, then serve it on a socket that is made only now; a handler is cancelled when its client leaves."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        server = runner.server
        assert server is not None
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: Connection(server), sock=new_socket(), backlog=BACKLOG)
        try:
            yield
        finally:
            listener.close()
    finally:
        await runner.cleanup()


class Connection(GatedHandler):
    """One client's connection to `server`, for `loop.create_server`."""

    __slots__ = ("_first_request",)

    def __init__(self, server: web.Server) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, access_log=None, max_field_size=HEADER_BYTES)  # type: ignore[arg-type]
        self.gate = None
        self._first_request: asyncio.TimerHandle | None = loop.call_later(REQUEST_SECONDS, self._expect_request)

    def _expect_request(self) -> None:
        self._first_request = None
        if self._request_count == 0 and self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._first_request is not None:
            self._first_request.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be read as a request: aiohttp's own quotes the line, and its token with it."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        log.info("http.malformed", kind=type(exc).__name__, peer=request.remote)
        return _malformed()


def _malformed() -> web.Response:
    sentence = "This is not a valid HTTP request, or its address or a header is too long."
    request_id = uuid.uuid4().hex
    answer = problem(PlatformError(ErrorCode.INVALID_REQUEST, sentence), request_id)
    answer.headers.update(
        {
            "X-Request-ID": request_id,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            "Server": SERVER_NAME,
        }
    )
    answer.force_close()
    return answer
