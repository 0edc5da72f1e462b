"""Answers of a server that drains."""

import asyncio
import uuid

import aiohttp
import pytest

from tests.conftest import NewServer
from tests.stack.chat_client import register
from tests.stack.running_stack import RunningStack


@pytest.mark.parametrize("seconds", ["0", "2"])
async def test_a_json_request_that_still_waits_when_a_drain_ends_gets_its_202(
    stack: RunningStack, http: aiohttp.ClientSession, new_server: NewServer, seconds: str
) -> None:
    server, gate = await new_server(DRAIN_SECONDS=seconds), uuid.uuid4().hex
    user = await register(http, server.url)
    body = {"content": f"GATE {gate} 2 3", "stream": False}
    headers = {"Authorization": f"Bearer {user.access_token}"}

    async def send() -> tuple[int, str, dict[str, object]]:
        async with http.post(f"{server.url}/api/v1/chat/message", json=body, headers=headers) as response:
            return response.status, response.headers.get("Location", ""), await response.json()

    sending = asyncio.ensure_future(send())
    await stack.at_gate(http, gate)
    server.terminate()
    status, location, turn = await sending
    assert (status, location, turn["status"]) == (202, f"/api/v1/chat/turns/{turn['id']}", "running")
    assert await server.stopped() == 0
    await stack.open_gate(http, gate)
    await server.restart()
    end = await user.ended(str(turn["id"]))
    assert end["message"]["content"] == "w0 w1 w2 w3 w4"
