"""The HTTP server below the API: malformed requests are not quoted; connections, headers and times are limited."""

import asyncio
import io
import logging
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import orjson
import pytest
import structlog
from aiohttp import web

from server.api.schemas import Problem
from server.http.http_server import REQUEST_SECONDS, Connection, OpenConnections, serving, within_open_files
from server.observability.logs import configure_logging
from tests.conftest import log_plainly
from tests.unit.api.world import World
from tests.virtual_time import virtual_time_with_sockets

SECRET = b"hunter2"


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    output = io.StringIO()
    configure_logging("production", "DEBUG", output)
    yield output
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    log_plainly()


async def _echo(request: web.Request) -> web.Response:
    return web.json_response({"length": len(request.headers.get("Authorization", ""))})


async def _unread(_request: web.Request) -> web.Response:
    return web.json_response({})


@pytest.fixture
async def port(logged: io.StringIO) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/", _echo)
    app.router.add_post("/unread", _unread)
    listening = socket.create_server(("127.0.0.1", 0))
    async with serving(app, lambda: listening):
        yield listening.getsockname()[1]


async def _exchange(port: int, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of the response, read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hunter2\1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer hunter2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hunter2\r\nbroken\r\n\r\n",
        b"GET /?ticket=hunter2\1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /?ticket=hunter2 HTTP/9.x\r\nHost: x\r\n\r\n",
        b"GET /?ticket=hunter2 and more HTTP/1.1\r\nHost: x\r\n\r\n",
        b"hunter2 / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /?ticket=" + SECRET * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + SECRET * 6000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: hunter2\r\n\r\n",
    ],
)
async def test_a_malformed_request_is_a_problem_that_quotes_nothing(
    port: int, logged: io.StringIO, request_: bytes
) -> None:
    head, body = await _exchange(port, request_)
    assert head.split(b" ")[1] == b"400"
    assert b"application/problem+json" in head
    assert b"Cache-Control: no-store" in head
    problem = Problem.model_validate_json(body)
    assert (problem.code, f"X-Request-ID: {problem.request_id}".encode() in head) == ("invalid_request", True)
    assert SECRET not in head + body
    assert SECRET.decode() not in logged.getvalue()
    assert "http.malformed" in logged.getvalue()


async def test_a_malformed_body_that_is_not_read_is_not_quoted_in_the_log(port: int, logged: io.StringIO) -> None:
    head = b"POST /unread HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    await _exchange(port, head + b"hunter2 is no length of a chunk\r\n\r\n")
    assert SECRET.decode() not in logged.getvalue()


async def test_a_token_of_32_kib_is_read(port: int) -> None:
    token = b"x" * (31 * 1024)
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %b\r\n\r\n" % token
    head, body = await _exchange(port, request)
    assert (head[:12], orjson.loads(body)) == (b"HTTP/1.1 200", {"length": len(token) + 7})


async def test_no_response_reveals_versions_of_the_server(port: int) -> None:
    head, _ = await _exchange(port, b"nonsense\r\n\r\n")
    assert b"\r\nServer: chat\r\n" in head + b"\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nAuthoriz"])
def test_a_connection_without_a_complete_header_is_closed(sent: bytes) -> None:
    @virtual_time_with_sockets
    async def play() -> None:
        async with _serve() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            await asyncio.sleep(REQUEST_SECONDS - 1)
            assert not reader.at_eof()
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            assert asyncio.get_running_loop().time() < 1_000 + 2 * REQUEST_SECONDS
            writer.close()

    play()


@virtual_time_with_sockets
async def test_an_idle_connection_stays_open_for_its_next_request() -> None:
    async with _serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(2 * REQUEST_SECONDS)
        writer.close()


@virtual_time_with_sockets
async def test_an_idle_connection_is_closed_after_a_minute_or_so() -> None:
    async with _serve() as port:
        reader, writer = await _first_request(port)
        began = asyncio.get_running_loop().time()
        assert await reader.read() == b""
        assert 60 < asyncio.get_running_loop().time() - began < 90
        writer.close()


@virtual_time_with_sockets
async def test_the_header_of_a_later_request_has_a_deadline() -> None:
    async with _serve() as port:
        for _ in range(2):
            reader, writer = await _first_request(port)
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(5)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            ended = asyncio.ensure_future(reader.read())
            while not ended.done():
                writer.write(b"x")
                await asyncio.wait([ended], timeout=1)
            with suppress(ConnectionError):
                assert await ended == b""
            assert asyncio.get_running_loop().time() - began < 5 + REQUEST_SECONDS + 2
            writer.close()


@virtual_time_with_sockets
async def test_the_deadline_restarts_with_each_request() -> None:
    async with _serve() as port:
        reader, writer = await _first_request(port)
        for _ in range(5):
            writer.write(b"GET / HTTP/1.1\r\nHost:")
            await asyncio.sleep(REQUEST_SECONDS - 5)
            writer.write(b" x\r\n\r\n")
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        writer.close()


@virtual_time_with_sockets
async def test_a_slow_body_does_not_exceed_the_deadline_of_the_header() -> None:
    async with _serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(REQUEST_SECONDS / 2)
            writer.write(b"x")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        writer.close()


@pytest.mark.parametrize(
    "headers",
    [
        b"".join(b"X-%d: %b\r\n" % (number, b"x" * 31_000) for number in range(33)),
        b"".join(b"X-%d: %b\r\n" % (number, b"x" * 22_000) for number in range(3)),
        b"".join(b"X-%d: %b\r\n" % (number, b"x" * 700) for number in range(100)),
    ],
    ids=["a megabyte", "66 kB", "many"],
)
@pytest.mark.parametrize("piece", [1_000, 10_000_000])
async def test_headers_of_over_64_kib_together_are_refused(app_port: int, headers: bytes, piece: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", app_port)
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"
    for start in range(0, len(request), piece):
        writer.write(request[start : start + piece])
        await asyncio.sleep(0)
    answer = await reader.readuntil(b"}")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"invalid_request"' in answer
    writer.transport.abort()


async def test_headers_that_do_not_end_are_refused_when_they_are_too_long(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
    for number in range(10):
        writer.write(b"X-%d: %b\r\n" % (number, b"x" * 8_000))
    answer = await reader.readuntil(b"}")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"no-store" in answer
    for number in range(100):
        writer.write(b"X-%d: %b\r\n" % (number, b"x" * 8_000))
    await writer.drain()  # the server reads and discards the rest
    assert await reader.read() == b""
    writer.close()


async def test_headers_of_60_kb_together_are_read(app_port: int) -> None:
    headers = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 30_000) for number in range(2))
    request = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n"
    assert (await _exchange(app_port, request))[0].startswith(b"HTTP/1.1 200")


@virtual_time_with_sockets
async def test_the_longest_idle_connection_is_evicted_for_one_above_the_limit() -> None:
    async with _serve(most=3) as port:
        working = await asyncio.open_connection("127.0.0.1", port)
        working[1].write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        first, second = await _first_request(port), await _first_request(port)
        first[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await first[0].readuntil(b"}")
        third = await _first_request(port)
        with suppress(ConnectionResetError):
            assert await second[0].read() == b""
        for reader, writer in (first, third):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        assert (await working[0].readuntil(b"}")).startswith(b"HTTP/1.1 200")


@virtual_time_with_sockets
async def test_a_new_connection_is_refused_while_all_others_are_busy() -> None:
    async with _serve(most=2) as port:
        working = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _, writer in working:
            writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await asyncio.sleep(1)
        refused, _ = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionResetError):
            assert await refused.read() == b""
        for reader, _ in working:
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
        await _first_request(port)


def test_connections_are_limited_by_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [256, 256]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, changed: limits.__setitem__(slice(None), changed))
    assert within_open_files(10_000) == 192
    assert within_open_files(100) == 100
    limits[:] = [256, 20_000]
    assert (within_open_files(10_000), limits[0] > 10_064) == (10_000, True)
    limits[:] = [1_024, resource.RLIM_INFINITY]
    assert (within_open_files(10_000), limits[0] > 10_064) == (10_000, True)
    limits[:] = [32, 32]
    assert within_open_files(10_000) == 1


@pytest.fixture
async def app_port() -> AsyncIterator[int]:
    """A server with the API's middlewares."""
    world = World()
    async with world.serving() as running:
        assert running.http.app is not None
        app = running.http.app
        listening = socket.create_server(("127.0.0.1", 0))
        server = web.Server(
            app._handle,  # type: ignore[arg-type]
            handler_cancellation=True,
            request_factory=app._make_request,
        )
        loop, population = asyncio.get_running_loop(), OpenConnections(100)
        listener = await loop.create_server(lambda: Connection(server, population), sock=listening)
        yield listening.getsockname()[1]
        listener.close()
        await server.shutdown()


async def _first_request(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose first request was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
    return reader, writer


async def _read(request: web.Request) -> web.Response:
    return web.json_response({"length": len(await request.read())})


async def _slow(_request: web.Request) -> web.Response:
    await asyncio.sleep(600)
    return web.json_response({})


@asynccontextmanager
async def _serve(most: int = 100) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/", _echo)
    app.router.add_get("/slow", _slow)
    app.router.add_post("/read", _read)
    listening = socket.create_server(("127.0.0.1", 0))
    async with serving(app, lambda: listening, most):
        yield listening.getsockname()[1]
