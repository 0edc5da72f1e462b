"""The HTTP server: limits of connections, of headers and of the time a request may take to arrive.

Headers may hold long tokens. A malformed request is never quoted, neither in the response nor in the log.
"""

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
from server.http.security_headers import SECURITY_HEADERS
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

HEADER_BYTES: Final = 32 * 1024
"""The longest header: an access token with many claims exceeds aiohttp's default of 8 KiB."""

BACKLOG: Final = 2048

MAX_CONNECTIONS: Final = 10_000

REQUEST_SECONDS: Final = 30.0
"""The time for a request's headers to arrive: of the first request since the connection was made, of later ones since
their first byte."""

KEEPALIVE_SECONDS: Final = 75.0
"""How long an idle connection stays open between two requests: longer than the usual minute of proxies."""

_INCOMPLETE_BYTES: Final = 32 * 1024 * 1024
"""The limit of all incomplete headers together, since unauthenticated clients can send them."""

_REFUSAL_SECONDS: Final = 1.0
_WARNING_SECONDS: Final = 10.0
_OWN_FILES: Final = 64
"""At least so many file descriptors are reserved for this process's own files and outgoing connections."""


@asynccontextmanager
async def serving(
    app: web.Application, new_socket: Callable[[], socket.socket], max_connections: int = MAX_CONNECTIONS
) -> AsyncIterator[None]:
    """Start `app`, then create the socket and serve on it. A handler is cancelled when its client disconnects.

    At most `max_connections` are open.
    """
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        server = runner.server
        assert server is not None
        loop, connections = asyncio.get_running_loop(), OpenConnections(max_connections)
        listener = await loop.create_server(lambda: Connection(server, connections), sock=new_socket(), backlog=BACKLOG)
        try:
            yield
        finally:
            listener.close()
    finally:
        await runner.cleanup()


def within_open_files(wanted: int) -> int:
    """How many of the `wanted` connections the limit of open files (RLIMIT_NOFILE) allows.

    Raises the soft limit as far as the hard limit allows, and reserves a quarter for other files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max(wanted * 4 // 3, wanted + _OWN_FILES) + 1
    if soft < needed and soft != resource.RLIM_INFINITY:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    limit = max(1, min(soft * 3 // 4, soft - _OWN_FILES))
    log.warning("connections.limited", limit=limit, wanted=wanted, files=soft, hint="Raise `ulimit -n`.")
    return limit


class OpenConnections:
    """All connections of a server, at most `max_connections`: for a further one, the longest idle one is evicted."""

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}
        self.incomplete_bytes = 0
        self._warned_at = -_WARNING_SECONDS

    def add(self, connection: "Connection") -> None:
        self._open.add(connection)
        self._idle[connection] = None
        if len(self._open) > self._max_connections:
            longest = next(iter(self._idle))  # the new one itself if all others are busy
            self._warn()
            self.remove(longest)
            longest.abort()

    def _warn(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._warned_at >= _WARNING_SECONDS:
            self._warned_at = now
            log.warning("connections.full", limit=self._max_connections, idle=len(self._idle))

    def remove(self, connection: "Connection") -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def mark_busy(self, connection: "Connection") -> None:
        self._idle.pop(connection, None)

    def mark_idle(self, connection: "Connection") -> None:
        if connection in self._open:
            self._idle[connection] = None


class Connection(GatedHandler):
    """One client's connection; the protocol of `loop.create_server`."""

    __slots__ = ("_connections", "_deadline", "_incomplete", "_is_refused", "_responded")

    def __init__(self, server: web.Server, connections: OpenConnections) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            max_field_size=HEADER_BYTES,
            keepalive_timeout=KEEPALIVE_SECONDS,
        )
        self.gate = None
        self._connections = connections
        self._responded = 0
        self._incomplete = 0  # bytes of a request whose header is not complete
        self._is_refused = False
        self._deadline: asyncio.TimerHandle | None = loop.call_later(REQUEST_SECONDS, self.abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._connections.mark_busy(self)
            self._reset_incomplete()
        elif data and self._responded == before:
            self._count_incomplete(len(data))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._responded += 1
            if self._responded == self._request_count:
                self._connections.mark_idle(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._reset_incomplete()
        self._connections.remove(self)
        super().connection_lost(exc)

    def abort(self) -> None:
        """Abort the connection, also in the middle of a request."""
        if self.transport is not None:
            self.transport.abort()

    def _count_incomplete(self, size: int) -> None:
        """Count `size` more bytes of an incomplete header, and start its deadline."""
        self._incomplete += size
        self._connections.incomplete_bytes += size
        if self._incomplete > HEADERS_BYTES or self._connections.incomplete_bytes > _INCOMPLETE_BYTES:
            self._refuse()
        elif self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(REQUEST_SECONDS, self.abort)

    def _reset_incomplete(self) -> None:
        self._connections.incomplete_bytes -= self._incomplete
        self._incomplete = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self) -> None:
        """Refuse a request whose header is too long. Later bytes are discarded, so that the response arrives."""
        self._is_refused = True
        self._reset_incomplete()
        log.info("http.malformed", kind="HeadersTooLong", peer=self._peer())
        response, transport = _malformed(), self.transport
        if transport is None or transport.is_closing():
            return
        headers = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
        body = bytes(response.body) if isinstance(response.body, bytes | bytearray) else b""
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
        """The response to a malformed request. aiohttp's own response quotes the line, which may hold a token."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        log.info("http.malformed", kind=type(exc).__name__, peer=request.remote)
        return _malformed()


def _malformed() -> web.Response:
    sentence = "This is not a valid HTTP request, or its address, a header or all of them are too long."
    request_id = uuid.uuid4().hex
    response = problem(PlatformError(ErrorCode.INVALID_REQUEST, sentence), request_id)
    response.headers.update(
        {**SECURITY_HEADERS, "X-Request-ID": request_id, "Cache-Control": "no-store", "Server": SERVER_NAME}
    )
    response.force_close()
    return response
