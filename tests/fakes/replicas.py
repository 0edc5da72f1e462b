"""Replicas in memory: one broker that every process of a test reaches, which crashes, forgets and recovers at will."""

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from server.ports import (
    Append,
    ControlMessage,
    FencedError,
    Lease,
    Published,
    Refusal,
    ReplicaListener,
    ReplicaState,
    ReplicasUnavailableError,
    Rewrite,
)
from server.protocol.errors import PlatformError

LATENCY = 0.001
RECONNECT_SECONDS = 2.0
"""Seconds for which a backend tries to connect again before it is unavailable."""
Delivery = Callable[[ReplicaListener], None]


async def _at_once() -> None:
    return None


@dataclass(slots=True)
class _Replica:
    """One user's replica as the broker keeps it."""

    state: ReplicaState
    events: dict[int, bytes] = field(default_factory=dict)


class MemoryBroker:
    """What the backends of all processes share. Up from the start."""

    def __init__(self) -> None:
        self.replicas: dict[str, _Replica] = {}
        self.is_up = True
        self.is_full = False
        self.loses_control = False
        """Whether control messages are lost."""
        self.backends: list[MemoryReplicas] = []
        self._saved: dict[str, _Replica] = {}

    def save(self) -> None:
        """What is there now survives a crash."""
        self._saved = copy.deepcopy(self.replicas)

    def crash(self) -> None:
        """Die, and lose everything since the last `save`."""
        self.is_up = False
        self.replicas = copy.deepcopy(self._saved)
        for backend in self.backends:
            backend.cut()

    def start(self) -> None:
        self.is_up = True

    def forget(self, user_id: str) -> None:
        """The replica was evicted, or has expired."""
        self.replicas.pop(user_id, None)

    def publish(self, user_id: str, news: Published) -> None:
        for backend in self.backends:
            if user_id in backend.followed:
                backend.deliver(lambda listener: listener.published(user_id, news))


class MemoryReplicas:
    """One process's way to the broker. `cross` is where the process meets the world."""

    def __init__(self, broker: MemoryBroker, cross: Callable[[], Awaitable[None]] = _at_once) -> None:
        self._broker = broker
        self._cross = cross
        self._deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self._broken = asyncio.Event()
        self._listener: ReplicaListener | None = None
        self.followed: set[str] = set()
        self.is_available = True

    @asynccontextmanager
    async def running(self, listener: ReplicaListener) -> AsyncIterator[None]:
        self._listener = listener
        self._broker.backends.append(self)
        tasks = [asyncio.create_task(self._listen(listener)), asyncio.create_task(self._watch(listener))]
        if not self._broker.is_up:
            self.report_unavailable()
        try:
            yield
        finally:
            self._broker.backends.remove(self)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def deliver(self, delivery: Delivery) -> None:
        self._deliveries.put_nowait(delivery)

    def cut(self) -> None:
        """The connection breaks: what was not delivered yet never is."""
        while not self._deliveries.empty():
            self._deliveries.get_nowait()
        self._broken.set()

    def report_unavailable(self) -> None:
        if self.is_available and self._listener is not None:
            self.is_available = False
            self._broken.set()
            self._listener.unavailable()

    async def _listen(self, listener: ReplicaListener) -> None:
        while True:
            delivery = await self._deliveries.get()
            await self._cross()
            delivery(listener)

    async def _watch(self, listener: ReplicaListener) -> None:
        while True:
            await self._broken.wait()
            self._broken.clear()
            waited = 0.0
            while not self._broker.is_up or (not self.is_available and self._broker.is_full):
                await asyncio.sleep(0.5)
                await self._cross()
                waited += 0.5
                if waited >= RECONNECT_SECONDS:
                    self.report_unavailable()
            self._broken.clear()
            if self.is_available:
                listener.missed()
            else:
                self.is_available = True
                listener.recovered()

    async def _reach(self, *, writes: bool = False) -> None:
        await self._pass()
        await asyncio.sleep(LATENCY)
        self._must_answer(writes)

    async def _answered(self) -> None:
        await asyncio.sleep(0)
        self._must_answer(writes=False)
        await self._pass()

    async def _pass(self) -> None:
        try:
            await self._cross()
        except PlatformError as dead:
            raise ReplicasUnavailableError from dead

    def _must_answer(self, writes: bool) -> None:
        if not self._broker.is_up or (writes and self._broker.is_full):
            raise ReplicasUnavailableError

    # ReplicaBackend

    async def follow(self, user_id: str) -> None:
        self.followed.add(user_id)
        await self._reach()
        await self._answered()

    def unfollow(self, user_id: str) -> None:
        self.followed.discard(user_id)

    async def state(self, user_id: str) -> ReplicaState | None:
        await self._reach()
        replica = self._broker.replicas.get(user_id)
        found = None if replica is None else replica.state
        await self._answered()
        return found

    async def take_over(self, lease: Lease) -> ReplicaState | None:
        await self._reach(writes=True)
        replica = self._broker.replicas.get(lease.user_id)
        found = None if replica is None else replica.state
        if replica is not None:
            if replica.state.fence > lease.fence:
                raise FencedError(lease.user_id)
            replica.state = replace(replica.state, fence=lease.fence)
        await self._answered()
        return found

    async def append(self, appends: Sequence[Append]) -> list[int | Refusal]:
        await self._reach(writes=True)
        outcomes = [self._append(append) for append in appends]
        await self._answered()
        return outcomes

    def _append(self, append: Append) -> int | Refusal:
        user_id, fence = append.lease.user_id, append.lease.fence
        replica = self._broker.replicas.get(user_id)
        if replica is None:
            return Refusal.ABSENT
        state = replica.state
        if state.fence > fence:
            return Refusal.FENCED
        if state.epoch != append.epoch:
            return Refusal.ABSENT
        if state.head != append.after:
            return state.head
        replica.events |= dict(enumerate(append.events, start=state.head + 1))
        replica.events = {seq: data for seq, data in replica.events.items() if seq > append.trim}
        state = replace(state, fence=fence, head=state.head + len(append.events))
        if append.view is not None:
            state = replace(state, view=append.view)
        if append.text_of:
            text = state.text + append.text if append.text_of == state.text_of else append.text
            state = replace(state, text_of=append.text_of, text=text)
        replica.state = state
        self._broker.publish(user_id, Published(fence, append.epoch, append.after, append.events, append.view))
        return state.head

    async def rewrite(self, rewrites: Sequence[Rewrite]) -> list[int | Refusal]:
        await self._reach(writes=True)
        outcomes = [self._rewrite(rewrite) for rewrite in rewrites]
        await self._answered()
        return outcomes

    def _rewrite(self, rewrite: Rewrite) -> int | Refusal:
        user_id, state = rewrite.lease.user_id, rewrite.state
        known = self._broker.replicas.get(user_id)
        if known is not None and known.state.fence > rewrite.lease.fence:
            return Refusal.FENCED
        after = state.head - len(rewrite.events)
        events = dict(enumerate(rewrite.events, start=after + 1))
        self._broker.replicas[user_id] = _Replica(replace(state, fence=rewrite.lease.fence), events)
        news = Published(rewrite.lease.fence, state.epoch, after, rewrite.events, state.view, state)
        self._broker.publish(user_id, news)
        return state.head

    async def read(self, user_id: str, epoch: str, after: int, upto: int) -> tuple[bytes, ...] | None:
        await self._reach()
        replica = self._broker.replicas.get(user_id)
        wanted, found = range(after + 1, upto + 1), None
        if replica is not None and replica.state.epoch == epoch and all(seq in replica.events for seq in wanted):
            found = tuple(replica.events[seq] for seq in wanted)
        await self._answered()
        return found

    async def broadcast(self, message: ControlMessage) -> None:
        await self._reach()
        for backend in self._broker.backends:
            if backend is not self and not self._broker.loses_control:
                backend.deliver(lambda listener: listener.received(message))

    async def keep(self, user_ids: Sequence[str]) -> None:
        await self._reach()
