"""Two servers around one Redis, and users with a device on each: for the tests of several instances."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

from tests.conftest import NewServer
from tests.faults.clients import Device
from tests.faults.transcript import content_of
from tests.stack.chat_client import TIMEOUT, ChatUser, register
from tests.stack.own_server import ServerProcess
from tests.stack.running_stack import RunningStack

Json = dict[str, Any]


@dataclass(slots=True)
class TwoServers:
    """`first` and `second` share a Redis; devices connect to either. At the end of the block devices disconnect."""

    stack: RunningStack
    http: aiohttp.ClientSession
    first: ServerProcess
    second: ServerProcess
    exits: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.exits.aclose()

    async def user(self) -> ChatUser:
        """A user whose agent is ready."""
        user = await register(self.http, self.first.url)
        await user.say("ECHO hello")
        return user

    async def device(self, user: ChatUser, *servers: ServerProcess) -> Device:
        """A device that connects to these servers only, past its first `ready`."""
        device = await self.exits.enter_async_context(Device(user, [server.url for server in servers]))
        await device.until(lambda: device.connected)
        return device

    def gate(self) -> str:
        return uuid.uuid4().hex

    async def open(self, gate: str) -> None:
        await self.stack.open_gate(self.http, gate)

    async def asked(self, text: str) -> int:
        """The number of model requests with this text in the last user message."""
        return len(await self.stack.model_log(self.http, text))

    async def call(
        self, server: ServerProcess, user: ChatUser, method: str, path: str, body: Json | None = None
    ) -> Any:
        """(status, body) of a request to one of the servers."""
        async with self.http.request(method, f"{server.url}/api/v1{path}", json=body, headers=user.headers) as response:
            return response.status, await response.json()


async def start_two(new_server: NewServer, **variables: str | None) -> tuple[ServerProcess, ServerProcess]:
    """Two servers, ready, with these settings."""
    first, second = await asyncio.gather(new_server("first", **variables), new_server("second", **variables))
    return first, second


@asynccontextmanager
async def two_servers(
    stack: RunningStack, http: aiohttp.ClientSession, pair: tuple[ServerProcess, ServerProcess]
) -> AsyncIterator[TwoServers]:
    """The pair, once both are ready: an earlier test may have killed one, or Redis."""
    await asyncio.gather(*(_until_ready(server, http) for server in pair))
    async with TwoServers(stack, http, *pair) as both:
        yield both


async def _until_ready(server: ServerProcess, http: aiohttp.ClientSession) -> None:
    if not server.alive:
        await server.restart()
    async with asyncio.timeout(TIMEOUT):
        while True:
            async with http.get(f"{server.url}/ready") as response:
                if (await response.json())["status"] == "ready":
                    return
            await asyncio.sleep(0.1)


def content(device: Device, message_id: str) -> str:
    """The reply as this device has it from the terminal event, or from the API."""
    turn = device.transcript.replies[device.transcript.turn_of[message_id]].turn
    return "" if turn is None else content_of(turn)


def faultless(*devices: Device) -> bool:
    """True if no device received a violation of the protocol. Raises AssertionError with the violations."""
    for device in devices:
        assert device.transcript.faults == [], str(device)
    return True
