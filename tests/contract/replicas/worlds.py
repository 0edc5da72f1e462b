"""A backend with what its contract needs around it: several instances, and a broker that crashes and fills."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, Self

from pydantic import SecretStr

from server.adapters.redis.client import RedisClient
from server.adapters.redis.replicas import RedisReplicas
from server.ports import ControlMessage, Lease, Published, ReplicaBackend
from tests.fakes.replicas import MemoryBroker, MemoryReplicas
from tests.stack.own_redis import OwnRedis

PATIENCE_SECONDS = 120.0
OWNER, OTHER = "owner", "other"


@dataclass(slots=True)
class Listener:
    """What one instance was called with."""

    appended: list[tuple[str, Published]] = field(default_factory=list)
    messages: list[ControlMessage] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    def published(self, user_id: str, published: Published) -> None:
        self.appended.append((user_id, published))
        self._grown.set()

    def missed(self) -> None:
        self._become("missed")

    def received(self, message: ControlMessage) -> None:
        self.messages.append(message)
        self._grown.set()

    def unavailable(self) -> None:
        self._become("unavailable")

    def recovered(self) -> None:
        self._become("recovered")

    def _become(self, state: str) -> None:
        self.states.append(state)
        self._grown.set()

    async def until(self, seen: Callable[[Self], object]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not seen(self):
                self._grown.clear()
                await self._grown.wait()


@dataclass(frozen=True, slots=True)
class Instance:
    replicas: ReplicaBackend
    listener: Listener


class ReplicaWorld(Protocol):
    """One broker, and as many instances around it as a test starts."""

    async def instance(self) -> Instance: ...

    async def save(self) -> None:
        """What the broker holds now survives a crash."""

    async def crash(self) -> None: ...

    async def start(self) -> None: ...

    async def fill(self) -> None:
        """The broker takes no more."""

    async def accept_writes(self) -> None: ...

    async def forget(self, user_id: str) -> None:
        """The replica expires."""


class MemoryWorld:
    def __init__(self, exits: AsyncExitStack) -> None:
        self._exits = exits
        self._broker = MemoryBroker()

    async def instance(self) -> Instance:
        replicas, listener = MemoryReplicas(self._broker), Listener()
        await self._exits.enter_async_context(replicas.running(listener))
        return Instance(replicas, listener)

    async def save(self) -> None:
        self._broker.save()

    async def crash(self) -> None:
        self._broker.crash()

    async def start(self) -> None:
        self._broker.start()

    async def fill(self) -> None:
        self._broker.is_full = True

    async def accept_writes(self) -> None:
        self._broker.is_full = False

    async def forget(self, user_id: str) -> None:
        self._broker.forget(user_id)


class RedisWorld:
    def __init__(self, exits: AsyncExitStack, server: OwnRedis) -> None:
        self._exits = exits
        self.server = server

    async def instance(self, deployment: str = "tests") -> Instance:
        client = await self._exits.enter_async_context(aclosing(RedisClient(SecretStr(self.server.url))))
        replicas, listener = RedisReplicas(client, deployment), Listener()
        await self._exits.enter_async_context(replicas.running(listener))
        return Instance(replicas, listener)

    async def save(self) -> None:
        self.server.save()

    async def crash(self) -> None:
        self.server.crash()

    async def start(self) -> None:
        self.server.start()

    async def fill(self) -> None:
        self.server.fill()

    async def accept_writes(self) -> None:
        self.server.accept_writes()

    async def forget(self, user_id: str) -> None:
        for key in self.server.client.keys(f"*{{{user_id}}}*"):
            self.server.client.delete(key)


@asynccontextmanager
async def memory_world() -> AsyncIterator[MemoryWorld]:
    async with AsyncExitStack() as exits:
        yield MemoryWorld(exits)


@asynccontextmanager
async def redis_world(server: OwnRedis) -> AsyncIterator[RedisWorld]:
    server.client.flushall()
    async with AsyncExitStack() as exits:
        yield RedisWorld(exits, server)


def lease(user_id: str, fence: int = 1, owner: str = OWNER) -> Lease:
    return Lease(user_id, owner, fence)
