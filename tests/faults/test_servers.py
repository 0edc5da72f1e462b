"""The server processes for tests of failures: they can be killed, frozen, drained and restarted."""

import asyncio
import socket

import aiohttp
import pytest

from tests.conftest import NewServer
from tests.stack.chat_client import register
from tests.stack.own_server import ServerProcess


async def test_a_server_of_the_tests_own_keeps_its_users_and_its_port_across_a_kill_and_a_deploy(
    new_server: NewServer, http: aiohttp.ClientSession
) -> None:
    server = await new_server()
    user = await register(http, server.url)
    assert (await user.say("ECHO first"))["message"]["content"] == "first"
    server.kill()
    assert not server.alive
    with socket.socket() as another, pytest.raises(OSError, match="in use"):
        another.bind(("127.0.0.1", server.port))
    await server.restart()
    assert (await user.say("ECHO second"))["message"]["content"] == "second"
    server.terminate()
    assert await server.stopped() == 0
    await server.restart()
    history = (await user.get("/chat/history"))["data"]
    assert [message["content"] for message in history] == ["second", "ECHO second", "first", "ECHO first"]


async def test_a_frozen_server_accepts_connections_and_answers_when_it_thaws(
    new_server: NewServer, http: aiohttp.ClientSession
) -> None:
    server = await new_server()
    server.freeze()
    asked = asyncio.ensure_future(http.get(f"{server.url}/health"))
    _reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.close()
    assert server.alive
    assert not asked.done()
    server.thaw()
    async with await asked as response:
        assert response.status == 200


async def test_a_server_that_cannot_start_says_why(new_server: NewServer) -> None:
    with pytest.raises(AssertionError, match="SECRET_KEY"):
        await new_server(SECRET_KEY=None)


async def test_nothing_is_left_running(new_server: NewServer, server_env: dict[str, str]) -> None:
    server = await new_server()
    with ServerProcess(server_env, server.log.with_name("other.log")) as other:
        await other.ready()
        other.freeze()
    assert not other.alive
