"""Failed requests: whether anything was sent."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from server.adapters.aiohttp_transport import AiohttpTransport, PlainClient
from server.adapters.letta.client import LettaClient, get_json
from tests.unit.adapters.letta.scripted import Answer, ScriptedLetta, cut, scripted_letta
from tests.virtual_time import virtual_time_with_sockets

NIL_ID = "http://127.0.0.1:9"


class FlakyTransport(AiohttpTransport):
    """Fails to connect a given number of times, and counts the attempts."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures
        self.tries = 0

    async def _send(self, request: httpx.Request) -> aiohttp.ClientResponse:
        self.tries += 1
        if self.tries <= self.failures:
            raise aiohttp.ConnectionTimeoutError("connecting took too long")
        return await super()._send(request)


@pytest.fixture
async def world() -> AsyncIterator[tuple[ScriptedLetta, LettaClient]]:
    async with scripted_letta() as opened:
        yield opened


async def post(transport: AiohttpTransport, url: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=transport, timeout=5) as http:
        return await http.post(url, json={"a": 1})


async def test_a_connection_that_hangs_is_retried_once(world: tuple[ScriptedLetta, LettaClient]) -> None:
    letta, client = world
    letta.answer = _hello
    transport = FlakyTransport(failures=1)
    response = await post(transport, str(client.as_admin().base_url))
    assert (response.status_code, response.json()) == (200, {"hello": "there"})
    assert transport.tries == 2
    assert letta.bodies == [{"a": 1}]


async def test_a_second_failure_to_connect_is_final() -> None:
    transport = FlakyTransport(failures=9)
    with pytest.raises(httpx.ConnectError):
        await post(transport, NIL_ID)
    assert transport.tries == 2


async def test_a_refused_connection_means_that_nothing_was_sent() -> None:
    with pytest.raises(httpx.ConnectError):
        await post(AiohttpTransport(), NIL_ID)


async def test_a_connection_lost_before_the_answer_is_not_retried(world: tuple[ScriptedLetta, LettaClient]) -> None:
    letta, client = world

    async def vanish(request: web.Request) -> web.Response:
        await cut(request)
        return web.Response()

    letta.answer = vanish
    with pytest.raises(httpx.ReadError):
        await post(AiohttpTransport(), str(client.as_admin().base_url))
    assert len(letta.requests) == 1


async def test_an_answer_that_times_out_means_that_the_request_may_have_arrived(
    world: tuple[ScriptedLetta, LettaClient],
) -> None:
    letta, client = world
    never = asyncio.Event()

    async def wait(_request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    letta.answer = wait
    async with httpx.AsyncClient(transport=AiohttpTransport(), timeout=httpx.Timeout(5, read=0.05)) as http:
        with pytest.raises(httpx.ReadError):
            await http.get(str(client.as_admin().base_url))


def pieces(count: int, pause: float) -> Answer:
    """Answers with `count` pieces, and `pause` seconds before each of them but the first."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(count):
            await asyncio.sleep(pause if number else 0)
            await response.write(b"piece ")
        await response.write_eof()
        return response

    return answer


async def read(answer: Answer, pause: float = 0.0, total: float | None = None) -> int:
    """Pieces read within a read timeout of 10 s, with `pause` seconds after each of them."""
    read = 0
    async with scripted_letta() as (letta, client):
        letta.answer = answer
        timeout = httpx.Timeout(5, read=10)
        async with (
            httpx.AsyncClient(transport=AiohttpTransport(total=total), timeout=timeout) as http,
            http.stream("GET", str(client.as_admin().base_url)) as response,
        ):
            async for _ in response.aiter_raw():
                read += 1
                await asyncio.sleep(pause)
    return read


@virtual_time_with_sockets
async def test_a_body_may_take_longer_than_the_read_timeout() -> None:
    assert await read(pieces(8, pause=9.0)) == 8


@virtual_time_with_sockets
async def test_silence_within_a_body_is_a_read_error() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(httpx.ReadError):
        await read(pieces(2, pause=60.0))
    assert 10.0 <= loop.time() - began <= 13.0


@virtual_time_with_sockets
async def test_a_body_that_comes_slowly_ends_after_the_total_time() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(httpx.ReadError):
        await read(pieces(99, pause=2.0), total=30.0)
    assert 30.0 <= loop.time() - began <= 33.0


@virtual_time_with_sockets
async def test_a_caller_that_pauses_within_a_body_can_read_on() -> None:
    assert await read(pieces(2, pause=1.0), pause=60.0) == 2


async def test_a_compressed_answer_is_read(world: tuple[ScriptedLetta, LettaClient]) -> None:
    letta, client = world

    async def compressed(_request: web.Request) -> web.Response:
        body = gzip.compress(b'{"hello": "there"}')
        return web.Response(body=body, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})

    letta.answer = compressed
    assert await get_json(client.as_admin(), "/v1/anything") == {"hello": "there"}


async def test_an_address_is_sent_unchanged(world: tuple[ScriptedLetta, LettaClient]) -> None:
    letta, client = world
    letta.answer = _hello
    await get_json(client.as_admin(), "/v1/x", {"search": "a b&c=d/é"})
    assert letta.requests[0].query == {"search": "a b&c=d/é"}


@pytest.fixture
async def proxy() -> AsyncIterator[tuple[str, list[tuple[str, str | None]]]]:
    """A proxy's host and port, and the target and Authorization header of each request that it got."""
    seen = []

    async def handle(request: web.BaseRequest) -> web.Response:
        seen.append((str(request.url), request.headers.get("Authorization")))
        return web.Response()

    async with RawTestServer(handle) as server:
        yield f"{server.host}:{server.port}", seen


@pytest.mark.parametrize(
    ("variable", "scheme"), [("HTTP_PROXY", "http://"), ("ALL_PROXY", "http://"), ("HTTP_PROXY", "")]
)
async def test_a_proxy_of_the_environment_is_used_and_no_password_of_netrc(
    proxy: tuple[str, list[tuple[str, str | None]]],
    variable: str,
    scheme: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    address, seen = proxy
    (tmp_path / "netrc").write_text("default login somebody password secret\n")
    for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv(variable, f"{scheme}{address}")
    transport = AiohttpTransport(trust_env=True)
    async with httpx.AsyncClient(transport=transport, timeout=5) as http:
        await http.get("http://project.invalid/a", headers={"Authorization": "Bearer ours"})
        await http.get("http://project.invalid/b")
        assert seen == [("http://project.invalid/a", "Bearer ours"), ("http://project.invalid/b", None)]
        monkeypatch.setenv("NO_PROXY", "project.invalid")
        with pytest.raises(httpx.ConnectError):
            await http.get("http://project.invalid/c")


async def _hello(_request: web.Request) -> web.Response:
    return web.json_response({"hello": "there"})


async def test_a_plain_client_sends_no_cookie_and_follows_no_redirect(world: tuple[ScriptedLetta, LettaClient]) -> None:
    letta, client = world

    async def redirect(_request: web.Request) -> web.Response:
        answer = web.Response(status=302, headers={"Location": "/elsewhere"}, text="moved")
        answer.set_cookie("session", "1")
        return answer

    letta.answer = redirect
    async with PlainClient(AiohttpTransport(), timeout=5, headers={"X-Own": "1"}) as http:
        for _ in range(2):
            response = await http.post(str(client.as_admin().base_url), json={"a": 1})
            assert (response.status_code, response.text) == (302, "moved")
    assert [request.path for request in letta.requests] == ["/", "/"]
    assert [(request.headers.get("Cookie"), request.headers["X-Own"]) for request in letta.requests] == [
        (None, "1")
    ] * 2


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_the_connection_of_an_answer_that_a_hook_refuses_is_closed(
    world: tuple[ScriptedLetta, LettaClient], is_streamed: bool
) -> None:
    letta, client = world
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"piece ")
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return response

    seen: list[str] = []

    async def see(request: httpx.Request) -> None:
        seen.append(request.method)

    async def refuse(response: httpx.Response) -> None:
        raise LookupError(response.status_code)

    letta.answer = endless
    async with PlainClient(
        AiohttpTransport(), timeout=60, event_hooks={"request": [see], "response": [refuse]}
    ) as http:
        request = http.build_request("GET", str(client.as_admin().base_url))
        with pytest.raises(LookupError, match="200"):
            await http.send(request, stream=is_streamed)
        assert seen == ["GET"]
        await asyncio.wait_for(ended.wait(), 10)
