"""A thousand sockets that lose their network at the same moment, and all reconnect at once, while replies stream."""

import asyncio
import uuid
from contextlib import AsyncExitStack
from functools import partial

import aiohttp

from tests.conftest import NewServer
from tests.faults.chaos import ChaosProxy
from tests.faults.clients import Device, all_quiet
from tests.stack.chat_client import ChatUser, register
from tests.stack.running_stack import RunningStack

USERS = 16
DEVICES = 63
TIMEOUT = 240.0


async def test_a_thousand_sockets_reconnect_at_once_and_each_receives_every_reply_whole(
    stack: RunningStack, http: aiohttp.ClientSession, new_server: NewServer
) -> None:
    server = await new_server(
        REDIS_URL=None, MAX_RUNNING_TURNS=str(USERS), MAX_CONNECTIONS_PER_USER=str(DEVICES), LOG_LEVEL="WARNING"
    )
    users = [await register(http, server.url, f"User {n}") for n in range(USERS)]
    await asyncio.gather(*(_has_agent(user) for user in users))
    gate = uuid.uuid4().hex
    async with ChaosProxy(server.port) as proxy, AsyncExitStack() as stays:
        devices = [[Device(user, [proxy.url], heartbeat=120, first_pause=0) for _ in range(DEVICES)] for user in users]
        everybody = [device for own in devices for device in own]
        for own in devices:
            await asyncio.gather(*(stays.enter_async_context(device) for device in own))
            await all_quiet(own, TIMEOUT)
        messages = [await own[0].say(f"GATE {gate} 3 40") for own in devices]
        for own, message in zip(devices, messages, strict=True):
            for device in own:
                await device.until(partial(_shows, device, message, "w0 w1 w2"), TIMEOUT)
        for link in proxy.links:
            link.reset()
        opened = asyncio.ensure_future(stack.open_gate(http, gate))
        stranger = await register(http, server.url, "Not of the storm")  # other requests are answered meanwhile
        assert (await stranger.get("/chat/history"))["data"] == []
        await opened
        for own, message in zip(devices, messages, strict=True):
            for device in own:
                turn = await device.end_of(message, timeout=TIMEOUT)
                assert device.text(message) == turn["message"]["content"]
                assert turn["message"]["content"].endswith("w42")
        assert [device.transcript.faults + device.transcript.unfinished for device in everybody] == [[]] * len(
            everybody
        )
        assert {device.connections for device in everybody} == {2}
        assert {device.stopped_because for device in everybody} == {None}


def _shows(device: Device, message: str, text: str) -> bool:
    return device.text(message) == text


async def _has_agent(user: ChatUser) -> None:
    async with asyncio.timeout(TIMEOUT):
        while (await user.get("/agent/status"))["status"] != "active":
            await asyncio.sleep(0.5)
