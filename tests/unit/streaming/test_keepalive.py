"""Pings of WebSockets: they find a client that is gone, and cost an idle socket little."""

import asyncio

import pytest
from aiohttp import web

from server.streaming.connection import WebSocketConnection
from tests.unit.streaming.server_fixture import StreamingServer
from tests.virtual_time import now, virtual_time_with_sockets


@virtual_time_with_sockets
async def test_a_client_that_answers_pings_stays_and_one_that_does_not_is_closed() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.socket(user) as alive, server.socket(user, autoping=False) as dead:
            living = asyncio.ensure_future(alive.closed())
            began = now()
            assert await dead.closed() == (4003, "no_pong")
            assert 34 < (now() - began).total_seconds() < 36
            await asyncio.sleep(300)
            assert not living.done()
            living.cancel()


@virtual_time_with_sockets
async def test_pings_of_an_idle_socket_start_no_writer_and_are_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pings, woken = [], []
    ping, wake = web.WebSocketResponse.ping, WebSocketConnection.wake

    async def count_ping(socket: web.WebSocketResponse, message: bytes = b"") -> None:
        pings.append(now())
        await ping(socket, message)

    def count_wake(connection: WebSocketConnection) -> None:
        woken.append(now())
        wake(connection)

    async with StreamingServer() as server, server.socket(server.user()) as socket:
        monkeypatch.setattr(web.WebSocketResponse, "ping", count_ping)
        await socket.send("ping")
        await socket.until("pong")
        monkeypatch.setattr(WebSocketConnection, "wake", count_wake)
        reading = asyncio.ensure_future(socket.until("pong"))
        await asyncio.sleep(80)
        assert (len(pings), woken) == (2, [])
        await socket.send("ping")
        await reading
        assert (len(pings), len(woken)) == (2, 1)


@virtual_time_with_sockets
async def test_a_slow_command_does_not_fail_the_keepalive() -> None:
    async with StreamingServer() as server, server.socket(server.user()) as socket:

        async def slow(operation: str) -> None:
            if operation == "accept":
                await asyncio.sleep(50)

        server.world.database.before = slow
        await socket.send("message", client_message_id="m1", content="hello")
        await socket.until("turn.completed")
