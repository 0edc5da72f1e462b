"""The process under test: the application with fake services on the real HTTP server, controlled over its own pipes.

Reads a line per command and writes a line of JSON: `renew` (discard everything and begin anew, so that the rows in
memory do not count as growth) and `report`.
"""

import asyncio
import gc
import io
import os
import socket
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiohttp import web, web_app

from server.http.http_server import serving
from server.observability.logs import configure_logging
from server.protocol.limits import Limits
from server.protocol.shapes import AgentStatus
from tests.unit.api.world import PASSWORD, SECRET, Client, World

MARK = "quokka-orchid-lantern"
"""In all data of the victim; no answer to another user has it."""
_LIMITS = Limits(messages_per_minute=0, unsent_turns_per_period=10_000, connections_per_user=64, close_seconds=0.5)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SETTLING_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who sends requests; `token` None: nobody. `is_admitted`: the token is accepted."""

    name: str
    token: str | None = None
    is_admitted: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send what. `victim_turn` is a turn of another user."""

    port: int
    identities: tuple[Identity, ...]
    secrets: dict[str, str]
    victim_turn: str


@dataclass(frozen=True, slots=True)
class Report:
    """State after all clients have left. `tasks`: names of those that were not there before; `memory` in bytes."""

    tasks: tuple[str, ...]
    connections: int
    memory: int
    log: str


class Server:
    """One world, until the next `renew`."""

    def __init__(self, log: io.StringIO) -> None:
        self._log = log
        self._stack = AsyncExitStack()
        self._tasks_before: set[asyncio.Task[Any]] = set()
        self.world: World | None = None

    async def renew(self) -> Target:
        await self._stack.aclose()
        web_app._cached_build_middleware.cache_clear()  # aiohttp's cache would keep the newest twenty applications
        self._stack = AsyncExitStack()
        apps: list[web.Application] = []
        world = self.world = await self._stack.enter_async_context(World(limits=_LIMITS).serving(apps.append))
        listening = socket.create_server(("127.0.0.1", 0))
        await self._stack.enter_async_context(serving(apps[0], lambda: listening))
        target = await _populate(world, listening.getsockname()[1])
        await asyncio.sleep(0.1)
        self._tasks_before = asyncio.all_tasks()
        return target

    async def report(self) -> Report:
        """Waits until the clients' tasks have ended, for a minute."""
        assert self.world is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLING_SECONDS):
                while left := self._left():
                    await asyncio.wait(left, timeout=0.05)
        gc.collect()
        log = self._log.getvalue()
        self._log.seek(0)
        self._log.truncate()
        return Report(
            tuple(sorted(_name(task) for task in self._left())),
            self.world.hub.counts["connections"],
            _memory(),
            log,
        )

    async def aclose(self) -> None:
        await self._stack.aclose()

    def _left(self) -> list[asyncio.Task[Any]]:
        """Tasks of requests, turns and connections. Sessions stay for some minutes after their last client."""
        return [task for task in asyncio.all_tasks() - self._tasks_before if not _may_stay(task)]


def _memory() -> int:
    """The resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def _may_stay(task: "asyncio.Task[Any]") -> bool:
    return task is asyncio.current_task() or _name(task).startswith(_SESSION_TASKS)


_SESSION_TASKS = ("session",)


def _name(task: "asyncio.Task[Any]") -> str:
    coroutine = getattr(task.get_coro(), "__qualname__", "")
    return f"{coroutine} {task.get_name()}" if task.get_name().startswith("Task-") else task.get_name()


async def _populate(world: World, port: int) -> Target:
    """The identities, and a victim with data of each kind."""
    victim = await world.user()
    await victim.patch("/api/v1/user/profile", {"name": f"Vera {MARK}"})
    turn = (await victim.say(f"my secret is {MARK}")).json
    await victim.patch("/api/v1/agent/memory/human", {"value": f"Vera {MARK}"})
    user, admin, blocked = await world.user(), await world.user(), await world.user()
    world.database.admins.add(admin.user_id)
    world.set_status(blocked.user_id, AgentStatus.BLOCKED)
    keys = [(scope, await _api_key(user, scope)) for scope in ("read", "chat", "account")]
    expired = world.identity.issue(user.user_id).access_token.get_secret_value()
    identities = (
        Identity("anonymous"),
        Identity("a user", user.token, is_admitted=True),
        Identity("an admin", admin.token, is_admitted=True),
        *(Identity(f"a key to {scope}", key, is_admitted=True) for scope, key in keys),
        Identity("a blocked user", blocked.token),
        Identity("a made-up token", f"{expired}x"),
    )
    secrets = {
        "SECRET_KEY": SECRET.get_secret_value(),
        "service key": "sb_secret_x",
        "master key": "sk-master",
        "password": PASSWORD,
        "token of the victim": str(victim.token),
        **{f"token of {one.name}": one.token for one in identities if one.token},
    }
    return Target(port, identities, secrets, turn["id"])


async def _api_key(user: Client, scope: str) -> str:
    answer = await user.post("/api/v1/user/api-keys", {"name": scope, "scopes": [scope]})
    return str(answer.json["key"])


async def main() -> None:
    log = io.StringIO()
    configure_logging("production", "DEBUG", log)
    server = Server(log)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).strip():
        answer = asdict(await (server.renew() if line == b"renew" else server.report()))
        sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
        sys.stdout.buffer.flush()
    await server.aclose()


if __name__ == "__main__":
    uvloop.run(main())
