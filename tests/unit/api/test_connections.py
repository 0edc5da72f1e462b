"""Connections below the API: what is no HTTP is refused without a word of it, here or in the log."""

import asyncio
import io
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import orjson
import pytest
import structlog
from aiohttp import web

from server.api.connections import REQUEST_SECONDS, serving
from server.api.schemas import Problem
from server.observability import configure_logging
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
    """Head and body of what the server says until it closes."""
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


async def test_a_malformed_body_that_nobody_reads_is_not_quoted_in_the_log(port: int, logged: io.StringIO) -> None:
    head = b"POST /unread HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    await _exchange(port, head + b"hunter2 is no length of a chunk\r\n\r\n")
    assert SECRET.decode() not in logged.getvalue()


async def test_a_token_of_32_kib_is_read(port: int) -> None:
    token = b"x" * (31 * 1024)
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %b\r\n\r\n" % token
    head, body = await _exchange(port, request)
    assert (head[:12], orjson.loads(body)) == (b"HTTP/1.1 200", {"length": len(token) + 7})


async def test_no_answer_tells_the_versions_of_what_serves_it(port: int) -> None:
    head, _ = await _exchange(port, b"nonsense\r\n\r\n")
    assert b"\r\nServer: chat\r\n" in head + b"\r\n"


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nAuthoriz"])
def test_a_client_that_connects_and_says_nothing_whole_is_let_go(said: bytes) -> None:
    @virtual_time_with_sockets
    async def play() -> None:
        async with _site() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            await asyncio.sleep(REQUEST_SECONDS - 1)
            assert not reader.at_eof()
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            assert asyncio.get_running_loop().time() < 1_000 + 2 * REQUEST_SECONDS
            writer.close()

    play()


@virtual_time_with_sockets
async def test_a_client_that_has_asked_once_is_kept_for_its_next_request() -> None:
    async with _site() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(2 * REQUEST_SECONDS)
        writer.close()


@asynccontextmanager
async def _site() -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/", _echo)
    listening = socket.create_server(("127.0.0.1", 0))
    async with serving(app, lambda: listening):
        yield listening.getsockname()[1]
