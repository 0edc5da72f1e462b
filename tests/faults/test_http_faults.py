"""The proxy that injects faults: it forwards everything else unchanged, and each fault has the described effect."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from tests.faults.fault_kinds import VENDOR_WORDS, Answer, Hang, Interrupted, Reset
from tests.faults.http_faults import FaultProxy


class Service:
    """Streams `lines`, one write each, the last one when `last_line` is set, and counts its requests."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str, bytes]] = []
        self.last_line = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.done.append((request.method, request.raw_path, await request.read()))
        response = web.StreamResponse(headers={"X-Service": "yes", "Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(3):
            await response.write(b"data: line %d\n\n" % number)
        await self.last_line.wait()
        await response.write(b"data: last\n\n")
        return response


@pytest.fixture
async def service() -> Service:
    return Service()


@pytest.fixture
async def proxy(service: Service) -> AsyncIterator[FaultProxy]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    async with TestServer(app) as server, FaultProxy(str(server.make_url("/"))) as proxy:
        yield proxy


async def _whole(http: aiohttp.ClientSession, proxy: FaultProxy, **options: Any) -> tuple[int, str]:
    async with http.post(f"{proxy.url}/things?a=b%26c", data=b"a body", **options) as response:
        return response.status, await response.text()


async def test_what_passes_is_the_same_and_is_streamed(
    service: Service, proxy: FaultProxy, http: aiohttp.ClientSession
) -> None:
    async with http.post(f"{proxy.url}/things?a=b%26c", data=b"a body") as response:
        assert (response.status, response.headers["X-Service"]) == (200, "yes")
        assert await response.content.readuntil(b"line 2\n\n") == b"".join(b"data: line %d\n\n" % n for n in range(3))
        service.last_line.set()
        assert await response.text() == "data: last\n\n"
    assert service.done == [("POST", "/things?a=b%26c", b"a body")]
    assert proxy.requests("POST", "^/things", mentions="a body") == 1


async def test_a_connection_is_refused_while_the_proxy_does_not_listen(
    service: Service, proxy: FaultProxy, http: aiohttp.ClientSession
) -> None:
    service.last_line.set()
    await _whole(http, proxy)
    async with proxy.refusing():
        with pytest.raises(aiohttp.ClientOSError):
            await _whole(http, proxy)
        with socket.socket() as another, pytest.raises(OSError, match="in use"):  # nor is the port another's meanwhile
            another.bind(("127.0.0.1", URL(proxy.url).port or 0))
    assert (await _whole(http, proxy))[0] == 200


@pytest.mark.parametrize("forwarded", [False, True])
async def test_a_reset_comes_before_or_after_the_service_did_it(
    service: Service, proxy: FaultProxy, http: aiohttp.ClientSession, *, forwarded: bool
) -> None:
    service.last_line.set()
    with proxy.breaking(Reset(forwarded=forwarded), "POST", "/things", times=1) as rule:
        with pytest.raises(aiohttp.ClientOSError):
            await _whole(http, proxy)
        assert len(service.done) == int(forwarded)
        assert (await _whole(http, proxy))[0] == 200
    assert rule.played == 1


async def test_only_the_nth_request_that_mentions_something_is_broken(
    service: Service, proxy: FaultProxy, http: aiohttp.ClientSession
) -> None:
    service.last_line.set()
    with proxy.breaking(Answer(429, retry_after=7), mentions="a body", skip=1, times=1):
        statuses = [(await _whole(http, proxy))[0] for _ in range(3)]
    with proxy.breaking(Answer(500), mentions="another body"):
        statuses.append((await _whole(http, proxy))[0])
    assert statuses == [200, 429, 200, 200]
    with proxy.breaking(Answer(429, retry_after=7)):
        async with http.get(proxy.url) as response:
            assert response.headers["Retry-After"] == "7"
            assert VENDOR_WORDS in await response.text()


@pytest.mark.parametrize("after", [30, b"line 1"])
async def test_a_stream_is_reset_after_some_of_it(
    proxy: FaultProxy, http: aiohttp.ClientSession, after: int | bytes
) -> None:
    with proxy.breaking(Interrupted(after, "reset")):
        async with http.get(proxy.url) as response:
            with pytest.raises(aiohttp.ClientError):
                await response.content.readuntil(b"line 2\n\n")


async def test_noise_is_put_into_a_stream(proxy: FaultProxy, http: aiohttp.ClientSession) -> None:
    with proxy.breaking(Interrupted(b"line 1", "end", noise=b"\xff\x00")):
        async with http.get(proxy.url) as response:
            assert await response.read() == b"data: line 0\n\ndata: line 1\n\xff\x00"


@pytest.mark.parametrize("fault", [Hang(), Hang(forwarded=True), Interrupted(5, "silence")])
async def test_a_silence_lasts_as_long_as_the_caller_stays(
    service: Service, proxy: FaultProxy, http: aiohttp.ClientSession, fault: Hang | Interrupted
) -> None:
    service.last_line.set()
    with proxy.breaking(fault) as rule:
        asked = asyncio.ensure_future(_whole(http, proxy))
        await rule.happened()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asked), 0.05)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
