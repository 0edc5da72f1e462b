"""HTTP connections as this server holds them: room for long tokens, nothing of a malformed request repeated, and no
place for a client that connects and then sends nothing, or never ends its header."""

import asyncio
import resource
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from server.http.frame_gate import GatedHandler
from server.http.middlewares import HEADERS_BYTES, SERVER_NAME
from server.http.problems import problem
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

HEADER_BYTES: Final = 32 * 1024
"""The longest header: an access token with many claims outgrows aiohttp's 8 KiB."""

BACKLOG: Final = 2048

MOST_CONNECTIONS: Final = 10_000

REQUEST_SECONDS: Final = 30.0
"""Within which a request must have come, headers and all: the first since the connection was made, the others since
their first byte."""

KEEPALIVE_SECONDS: Final = 75.0
"""How long a connection is kept between two requests: longer than proxies keep theirs, of which most say a minute."""

_INCOMPLETE_BYTES: Final = 32 * 1024 * 1024
"""Of all headers that are still arriving: they need no sign-in."""

_REFUSAL_SECONDS: Final = 1.0
_TELL_SECONDS: Final = 10.0
_OWN_FILES: Final = 64
"""At least so many file descriptors are kept for what this process opens itself."""


@asynccontextmanager
async def serving(
    app: web.Application, new_socket: Callable[[], socket.socket], most: int = MOST_CONNECTIONS
) -> AsyncIterator[None]:
    """Start `app`, then serve it on a socket that is made only now; a handler is cancelled when its client leaves.

    At most `most` connections are open, whatever for.
    """
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        server = runner.server
        assert server is not None
        loop, population = asyncio.get_running_loop(), Population(most)
        listener = await loop.create_server(lambda: Connection(server, population), sock=new_socket(), backlog=BACKLOG)
        try:
            yield
        finally:
            listener.close()
    finally:
        await runner.cleanup()


def within_open_files(wanted: int) -> int:
    """How many connections there can be, of those `wanted`: each is a file, of which a process may open so many.

    The process's own limit is raised as far as it may raise it; a quarter is left for what it opens itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max(wanted * 4 // 3, wanted + _OWN_FILES) + 1
    if soft < needed and soft != resource.RLIM_INFINITY:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    most = max(1, min(soft * 3 // 4, soft - _OWN_FILES))
    log.warning("connections.limited", most=most, wanted=wanted, files=soft, hint="Raise `ulimit -n`.")
    return most


class Population:
    """All connections of a server. Where one is too many, the one that has been idle longest gives way to it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}
        self.incomplete_bytes = 0
        self._told_at = -_TELL_SECONDS

    def opened(self, connection: "Connection") -> None:
        self._open.add(connection)
        self._idle[connection] = None
        if len(self._open) > self._most:
            longest = next(iter(self._idle))  # perhaps the new one itself: all others are at work
            self._tell()
            self.closed(longest)
            longest.abort()

    def _tell(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            log.warning("connections.full", most=self._most, idle=len(self._idle))

    def closed(self, connection: "Connection") -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def at_work(self, connection: "Connection") -> None:
        self._idle.pop(connection, None)

    def idle(self, connection: "Connection") -> None:
        if connection in self._open:
            self._idle[connection] = None


class Connection(GatedHandler):
    """One client's connection to `server`, for `loop.create_server`."""

    __slots__ = ("_answered", "_deadline", "_incomplete", "_is_refused", "_population")

    def __init__(self, server: web.Server, population: Population) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            max_field_size=HEADER_BYTES,
            keepalive_timeout=KEEPALIVE_SECONDS,
        )
        self.gate = None
        self._population = population
        self._answered = 0
        self._incomplete = 0  # bytes of a request whose header is not complete
        self._is_refused = False
        self._deadline: asyncio.TimerHandle | None = loop.call_later(REQUEST_SECONDS, self.abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._population.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._population.at_work(self)
            self._expect_nothing()
        elif data and self._answered == before:
            self._expect_rest(len(data))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._answered += 1
            if self._answered == self._request_count:
                self._population.idle(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._expect_nothing()
        self._population.closed(self)
        super().connection_lost(exc)

    def abort(self) -> None:
        """End the connection, whatever it is at."""
        if self.transport is not None:
            self.transport.abort()

    def _expect_rest(self, size: int) -> None:
        """So much more of a header has come, which is not all of it."""
        self._incomplete += size
        self._population.incomplete_bytes += size
        if self._incomplete > HEADERS_BYTES or self._population.incomplete_bytes > _INCOMPLETE_BYTES:
            self._refuse()
        elif self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(REQUEST_SECONDS, self.abort)

    def _expect_nothing(self) -> None:
        self._population.incomplete_bytes -= self._incomplete
        self._incomplete = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self) -> None:
        """Answer a request whose header does not end. What still comes is discarded, so that the answer arrives."""
        self._is_refused = True
        self._expect_nothing()
        log.info("http.malformed", kind="HeadersTooLong", peer=self._peer())
        answer, transport = _malformed(), self.transport
        if transport is None or transport.is_closing():
            return
        headers = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        body = bytes(answer.body) if isinstance(answer.body, bytes | bytearray) else b""
        head = f"HTTP/1.1 400 Bad Request\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        transport.write(head.encode() + body)
        transport.write_eof()
        self._deadline = asyncio.get_running_loop().call_later(_REFUSAL_SECONDS, self.abort)

    def _peer(self) -> str | None:
        return self.peername[0] if isinstance(self.peername, tuple) else None

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
    sentence = "This is not a valid HTTP request, or its address, a header or all of them are too long."
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
