"""A burst of registrations: where their time goes, and what running streams and a user who signs in notice of it.

Letta and LiteLLM are the benchmark's own, so that the platform and its database are measured; `real` takes the stack's,
whose work for a registration fills both cores. The running streams are the benchmark's own in both cases.
"""

import asyncio
import re
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import orjson

from tests.bench.flame import recorded
from tests.bench.load import percentile
from tests.bench.own_platform import Platform, agents_ready, own_platform, users_with_agents
from tests.bench.processes import cpu_seconds, running
from tests.bench.table import Row, at_most, times
from tests.stack.chat_client import ChatUser, register
from tests.stack.own_server import ServerProcess
from tests.stack.running_stack import free_port

AIM: Final = 1.2
RATE: Final = 20
CHUNKS: Final = 100
SIGN_IN_PAUSE_SECONDS: Final = 0.2
_STEP: Final = re.compile(r"saga\.step.*?duration_ms=(\d+).*?step=(\w+)")
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Burst:
    """Milliseconds, but for the seconds until all agents were ready, and the server's processor time per user."""

    quiet: float
    meanwhile: float
    """p99 of the age of chunks of running streams."""
    quiet_sign_in: float
    sign_in: float
    """Median of another user's sign-ins, without the burst and during it."""
    sign_ups: list[float]
    ready_after: float
    cpu: float
    steps: dict[str, float]
    """Median of each step."""


def main(users: int, streams: int, quiet: float, real_users: int) -> list[Row]:
    """Print the figures with the benchmark's own services, and with the real ones for `real_users`, unless 0."""
    rows = _rows("own services", users, asyncio.run(_measure(users, streams, quiet, real=False)))
    if real_users:
        real = _rows("real ones", real_users, asyncio.run(_measure(real_users, streams, quiet, real=True)))
        rows += [Row(row.what, row.measured) for row in real]  # without an aim
    return rows


def _rows(services: str, users: int, burst: Burst) -> list[Row]:
    name = f"{users} registrations at once, {services}"
    steps = ", ".join(f"{step} {took:.0f}" for step, took in burst.steps.items())
    p99 = percentile(burst.sign_ups, 99)
    print(f"{name}: all agents ready after {burst.ready_after:.1f} s; sign-up p99 {p99:.0f} ms; ", end="")
    print(f"the server's CPU {burst.cpu * 1000:.0f} ms each; median ms of each step: {steps}")
    print(f"p99 of running streams: {burst.quiet:.1f} ms quiet, {burst.meanwhile:.1f} ms meanwhile; ", end="")
    sign_in = f"{burst.sign_in:.0f} ms against {burst.quiet_sign_in:.0f} ms quiet"
    print(f"median sign-in: {sign_in}", flush=True)
    beside = f"{burst.meanwhile:.1f} ms against {burst.quiet:.1f} ms"
    return [
        Row(f"{name}: all agents ready after", f"{burst.ready_after:.1f} s"),
        Row(f"{name}: ms of each step", steps),
        Row(f"{name}: sign-in of another user", sign_in),
        at_most(f"{name}: p99 of a running stream", times(burst.meanwhile, burst.quiet), AIM, "times quiet", beside),
    ]


async def _measure(users: int, streams: int, quiet_seconds: float, *, real: bool) -> Burst:
    async with own_platform() as platform:
        with _services(platform, real=real) as variables, platform.servers("server", **variables) as (server,):
            await server.ready()
            talkers = await users_with_agents(platform, server, streams)
            before = len(_steps(server.log))
            async with noticing(talkers) as noticed:
                quiet = await noticed.during(asyncio.sleep(quiet_seconds / 2))
                used, began = cpu_seconds(server.pid), time.monotonic()
                with recorded(server.pid):
                    sign_ups: list[float] = []
                    meanwhile = await noticed.during(_burst(platform, server, users, sign_ups))
                    used, ready_after = cpu_seconds(server.pid) - used, time.monotonic() - began
                after = await noticed.during(asyncio.sleep(quiet_seconds / 2))
            took = _steps(server.log)[before:]
    steps = {step: statistics.median(ms for name, ms in took if name == step) for step in dict(took)}
    return Burst(
        percentile(quiet.chunks + after.chunks, 99),
        percentile(meanwhile.chunks, 99),
        percentile(quiet.sign_ins + after.sign_ins, 50),
        percentile(meanwhile.sign_ins, 50),
        sign_ups,
        ready_after,
        used / users,
        steps,
    )


@contextmanager
def _services(platform: Platform, *, real: bool) -> Iterator[dict[str, str]]:
    """The variables that name the services."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--rate", str(RATE), "--chunks", str(CHUNKS)]
    if real:
        options += ["--letta", platform.env["LETTA_BASE_URL"].rstrip("/")]
    with running("tests.bench.own_services", *options, port=port):
        yield {"LETTA_BASE_URL": url} if real else {"LETTA_BASE_URL": url, "LITELLM_BASE_URL": url}


async def _burst(platform: Platform, server: ServerProcess, number: int, sign_ups: list[float]) -> None:
    """Register so many users at once. Returns when all agents are ready; `sign_ups` has the milliseconds of each."""

    async def sign_up() -> ChatUser:
        began = time.perf_counter()
        user = await register(platform.http, server.url)
        sign_ups.append((time.perf_counter() - began) * 1000)
        return user

    await agents_ready(list(await asyncio.gather(*(sign_up() for _ in range(number)))), pause=0.5)


@dataclass(slots=True)
class Noticed:
    """What users notice, in milliseconds: the age of each chunk that came, and how long each sign-in took."""

    chunks: list[float] = field(default_factory=list)
    sign_ins: list[float] = field(default_factory=list)

    async def during(self, what: Awaitable[object]) -> "Noticed":
        """What they notice meanwhile."""
        self.chunks, self.sign_ins = [], []
        await what
        return Noticed(self.chunks, self.sign_ins)


@asynccontextmanager
async def noticing(users: list[ChatUser]) -> AsyncIterator[Noticed]:
    """Replies of these users stream, one after another, and one of them signs in, until the end of the block."""
    noticed = Noticed()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_talk(user, noticed)) for user in users]
        tasks.append(group.create_task(_sign_in(users[0], noticed)))
        yield noticed
        for task in tasks:
            task.cancel()


async def _sign_in(user: ChatUser, noticed: Noticed) -> None:
    credentials = {"email": user.email, "password": user.password}
    while True:
        began = time.perf_counter()
        async with user.http.post(f"{user.url}/api/v1/auth/login", json=credentials) as response:
            assert response.status == 200, await response.text()
        noticed.sign_ins.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(SIGN_IN_PAUSE_SECONDS)


async def _talk(user: ChatUser, noticed: Noticed) -> None:
    url = f"{user.url}/api/v1/chat/stream"
    async with user.http.ws_connect(url, headers=user.headers, max_msg_size=0) as socket:
        await socket.receive()
        while True:
            await socket.send_json({"type": "message", "client_message_id": uuid.uuid4().hex, "content": "go"})
            await _read_turn(socket, noticed)


async def _read_turn(socket: aiohttp.ClientWebSocketResponse, noticed: Noticed) -> None:
    async for message in socket:
        now = time.monotonic_ns()
        frame = orjson.loads(message.data)
        if frame["type"] == "message.delta":
            noticed.chunks.extend((now - int(at)) / 1e6 for at in frame["text"].split())
        elif frame["type"] == "turn.completed":
            return
        elif frame["type"] in ("turn.failed", "error"):
            raise RuntimeError(f"a stream failed: {frame}")
    raise RuntimeError("a stream's connection was closed")


def _steps(log: Path) -> list[tuple[str, float]]:
    """Name and milliseconds of each step of provisioning in a server's log."""
    text = _COLOURS.sub("", log.read_text(errors="replace"))
    return [(found[2], float(found[1])) for found in _STEP.finditer(text)]
