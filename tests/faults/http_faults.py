"""An HTTP proxy on the loopback interface that injects faults into chosen requests.

It forwards all requests and streams unchanged, except those for which there is a rule; the faults are in `fault_kinds`.
Independent of pytest and of the service behind it.
"""

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.stack.running_stack import free_port

_OF_ONE_CONNECTION: Final = frozenset(
    {"connection", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
_NOT_ADDED: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class Fault(Protocol):
    """What happens to one request."""

    async def play(self, exchange: "Exchange") -> web.StreamResponse: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """A received request: `text` is its head and body, for searches."""

    method: str
    path: str
    text: str


@dataclass(slots=True, eq=False)
class Rule:
    """The requests that a fault is injected into, and the number of times it was."""

    fault: Fault
    method: str
    path: re.Pattern[str]
    mentions: str | Callable[[], str | None]
    skip: int
    times: int | None
    played: int = 0
    _again: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, seen: Seen) -> bool:
        """Whether the fault is injected into this request, which is counted."""
        if self._is_over or not self._is_meant(seen):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.played += 1
        self._again.set()
        return True

    @property
    def _is_over(self) -> bool:
        return self.times is not None and self.played >= self.times

    def _is_meant(self, seen: Seen) -> bool:
        mentions = self.mentions if isinstance(self.mentions, str) else self.mentions()
        same_path = self.method in ("*", seen.method) and self.path.search(seen.path) is not None
        return same_path and mentions is not None and mentions in seen.text

    async def happened(self, times: int = 1) -> None:
        """Return when the fault has happened this many times."""
        while self.played < times:
            self._again.clear()
            await self._again.wait()


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request on its way, with the operations for faults."""

    request: web.Request
    body: bytes
    session: aiohttp.ClientSession
    upstream: str

    @asynccontextmanager
    async def forwarded(self) -> AsyncIterator[aiohttp.ClientResponse]:
        """The service's answer. Resets the connection where the service gives none."""
        async with self.session.request(
            self.request.method,
            URL(self.upstream + self.request.rel_url.raw_path_qs, encoded=True),
            headers=_passed_on(self.request.headers.items()),
            data=self.body or None,
            allow_redirects=False,
            skip_auto_headers=_NOT_ADDED,
        ) as response:
            yield response

    async def let_the_service_answer(self) -> None:
        """Have the service process the request, and discard its answer."""
        async with self.forwarded() as response:
            await response.read()

    def begin(self, upstream: aiohttp.ClientResponse, *, same_length: bool = True) -> web.StreamResponse:
        """The head of the service's answer; without its length where the body will be another."""
        headers = _passed_on(upstream.headers.items())
        if not same_length:
            headers.pop("Content-Length", None)
        return web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=headers)

    async def relay(self) -> web.StreamResponse:
        """The service's answer as it comes."""
        async with self.forwarded() as upstream:
            response = self.begin(upstream)
            await response.prepare(self.request)
            async for data in upstream.content.iter_any():
                await response.write(data)
            return response

    async def reset(self) -> web.StreamResponse:
        """Reset the caller's connection, which ends the handler."""
        if self.request.transport is not None:
            _reset(self.request.transport)
        return await self.silence()

    async def silence(self) -> web.StreamResponse:
        """Send nothing until the caller disconnects, which ends the handler."""
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


class FaultProxy:
    """Use as `async with FaultProxy(url) as proxy:`; `proxy.url` is then the address of the proxy in front of `url`."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream.rstrip("/")
        self._rules: list[Rule] = []
        self._port = free_port()
        self._under_way = 0
        self._passing = asyncio.Event()
        self._passing.set()
        self.seen: list[Seen] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop_connections()
        await self._runner.cleanup()
        await self._session.close()

    @contextmanager
    def breaking(
        self,
        fault: Fault,
        method: str = "*",
        path: str = "",
        *,
        mentions: str | Callable[[], str | None] = "",
        skip: int = 0,
        times: int | None = None,
    ) -> Iterator[Rule]:
        """Inject `fault` into requests of this method whose path contains the pattern `path`, and that mention a text
        in head or body (a function returns the text once it is known): after the first `skip` ones, `times` times, and
        not beyond the end of the block."""
        rule = Rule(fault, method, re.compile(path), mentions, skip, times)
        self._rules.append(rule)
        try:
            yield rule
        finally:
            self._rules.remove(rule)

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[None]:
        """Hold requests until the end of the block, which begins when those under way have been answered."""
        self._passing.clear()
        try:
            while self._under_way:
                await asyncio.sleep(0.01)
            yield
        finally:
            self._passing.set()

    @asynccontextmanager
    async def refusing(self) -> AsyncIterator[None]:
        """Refuse new connections and reset open ones."""
        await self._site.stop()
        self._drop_connections()
        try:
            yield
        finally:
            await self._listen()

    def requests(self, method: str, path: str, mentions: str = "") -> int:
        """The number of requests of this method whose path contains the pattern and that mention a text."""
        return sum(
            one.method == method and re.search(path, one.path) is not None and mentions in one.text for one in self.seen
        )

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await self._site.start()

    def _drop_connections(self) -> None:
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                _reset(connection.transport)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        head = "\n".join(f"{name}: {value}" for name, value in request.headers.items())
        path = request.rel_url.raw_path_qs
        seen = Seen(request.method, path, f"{path}\n{head}\n{body.decode(errors='replace')}")
        self.seen.append(seen)
        exchange = Exchange(request, body, self._session, self._upstream)
        await self._passing.wait()
        self._under_way += 1
        try:
            for rule in self._rules:
                if rule.takes(seen):
                    return await rule.fault.play(exchange)
            return await exchange.relay()
        except aiohttp.ClientError:
            return await exchange.reset()
        finally:
            self._under_way -= 1


def _passed_on(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers if name.lower() not in _OF_ONE_CONNECTION)


def _reset(transport: asyncio.BaseTransport) -> None:
    """Close at once with RST, so that the other side gets an error and not an end."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert isinstance(transport, asyncio.Transport)
    transport.abort()
