"""A server of the benchmark's own in production's wiring, as `chat serve` starts it, on the tests' running stack.

Its Supabase is a fresh project on the stack's PostgreSQL; Letta and LiteLLM are the stack's, or others that are named.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.bench.stack import running_stack
from tests.stack.chat_client import ChatUser, register
from tests.stack.own_server import ServerProcess, server_environment
from tests.stack.own_supabase import own_supabase
from tests.stack.running_stack import RunningStack

READY_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Platform:
    """`env` are the variables of its servers."""

    stack: RunningStack
    env: Mapping[str, str]
    http: aiohttp.ClientSession
    logs: Path

    @contextmanager
    def servers(self, *names: str, **variables: str) -> Iterator[list[ServerProcess]]:
        """So many servers on one Redis, or one without: they may not be ready yet. `variables` replace settings."""
        env = {**self.env, **variables}
        if len(names) == 1:
            env.pop("REDIS_URL", None)
        with ExitStack() as running:
            yield [running.enter_context(ServerProcess(env, self.logs / f"{name}.log", forked=False)) for name in names]


@asynccontextmanager
async def own_platform() -> AsyncIterator[Platform]:
    """A fresh project without users."""
    stack = running_stack()
    with tempfile.TemporaryDirectory() as logs, own_supabase(stack, "bench") as supabase:
        timeout = aiohttp.ClientTimeout(total=READY_SECONDS)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:
            yield Platform(stack, server_environment(stack, supabase), http, Path(logs))


async def users_with_agents(platform: Platform, server: ServerProcess, number: int) -> list[ChatUser]:
    """New users, once their agents are ready."""
    users = list(await asyncio.gather(*(register(platform.http, server.url, f"User {n}") for n in range(number))))
    await agents_ready(users)
    return users


async def agents_ready(users: list[ChatUser], pause: float = 0.2) -> None:
    """Return when all agents are ready. Raises TimeoutError after READY_SECONDS."""
    until = time.monotonic() + READY_SECONDS
    for user in users:
        while (status := (await user.get("/agent/status"))["status"]) != "active":
            if time.monotonic() > until:
                raise TimeoutError(f"the agent of a user is {status}")
            await asyncio.sleep(pause)
