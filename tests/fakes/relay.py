"""A relay in memory: one broker that every process of a test reaches, which crashes, forgets and comes back at will."""

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from server.ports import (
    Batch,
    FencedError,
    Found,
    Lease,
    Notice,
    Outcome,
    Published,
    RelayAwayError,
    RelayReader,
    SharedState,
)
from server.protocol.errors import PlatformError

LATENCY = 0.001
PATIENCE = 2.0
"""Seconds for which a relay tries to connect again before it says that it is away."""
Telling = Callable[[RelayReader], None]


async def _at_once() -> None:
    return None


@dataclass(slots=True)
class _Log:
    """One user's log as the broker keeps it."""

    epoch: str
    run: int
    head: int = 0
    fence: int = 0
    view: bytes = b""
    text_of: str = ""
    text: str = ""
    events: dict[int, bytes] = field(default_factory=dict)

    @property
    def state(self) -> SharedState:
        return SharedState(self.epoch, self.head, self.view, self.text_of, self.text)


class MemoryBroker:
    """What the relays of all processes share. Up from the start."""

    def __init__(self) -> None:
        self.logs: dict[str, _Log] = {}
        self.run = 1
        self.is_up = True
        self.is_full = False
        self.loses_notices = False
        self.relays: list[MemoryRelay] = []
        self._saved: dict[str, _Log] = {}

    def save(self) -> None:
        """What is there now survives a crash."""
        self._saved = copy.deepcopy(self.logs)

    def crash(self) -> None:
        """Die, and lose everything since the last `save`."""
        self.is_up = False
        self.logs = copy.deepcopy(self._saved)
        for relay in self.relays:
            relay.cut()

    def start(self) -> None:
        self.is_up = True
        self.run += 1

    def forget(self, user_id: str) -> None:
        """The log was evicted, or has expired."""
        self.logs.pop(user_id, None)

    def publish(self, user_id: str, telling: Telling) -> None:
        for relay in self.relays:
            if user_id in relay.followed:
                relay.tell(telling)


class MemoryRelay:
    """One process's way to the broker. `cross` is where the process meets the world."""

    def __init__(self, broker: MemoryBroker, cross: Callable[[], Awaitable[None]] = _at_once) -> None:
        self._broker = broker
        self._cross = cross
        self._told: asyncio.Queue[Telling] = asyncio.Queue()
        self._broken = asyncio.Event()
        self._reader: RelayReader | None = None
        self.followed: set[str] = set()
        self.is_away = False

    @asynccontextmanager
    async def running(self, reader: RelayReader) -> AsyncIterator[None]:
        self._reader = reader
        self._broker.relays.append(self)
        tasks = [asyncio.create_task(self._listen(reader)), asyncio.create_task(self._watch(reader))]
        if not self._broker.is_up:
            self.report_away()
        try:
            yield
        finally:
            self._broker.relays.remove(self)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def tell(self, telling: Telling) -> None:
        self._told.put_nowait(telling)

    def cut(self) -> None:
        """The connection breaks: what was not delivered yet never is."""
        while not self._told.empty():
            self._told.get_nowait()
        self._broken.set()

    def report_away(self) -> None:
        if not self.is_away and self._reader is not None:
            self.is_away = True
            self._broken.set()
            self._reader.away()

    async def _listen(self, reader: RelayReader) -> None:
        while True:
            telling = await self._told.get()
            await self._cross()
            telling(reader)

    async def _watch(self, reader: RelayReader) -> None:
        while True:
            await self._broken.wait()
            self._broken.clear()
            waited = 0.0
            while not self._broker.is_up or (self.is_away and self._broker.is_full):
                await asyncio.sleep(0.5)
                await self._cross()
                waited += 0.5
                if waited >= PATIENCE:
                    self.report_away()
            self._broken.clear()
            if self.is_away:
                self.is_away = False
                reader.back()
            else:
                reader.missed()

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
            raise RelayAwayError from dead

    def _must_answer(self, writes: bool) -> None:
        if not self._broker.is_up or (writes and self._broker.is_full):
            raise RelayAwayError

    # EventRelay

    async def follow(self, user_id: str) -> None:
        self.followed.add(user_id)
        await self._reach()
        await self._answered()

    def unfollow(self, user_id: str) -> None:
        self.followed.discard(user_id)

    async def look(self, user_id: str, epoch: str) -> Found:
        await self._reach()
        found = self._found(user_id, epoch)
        await self._answered()
        return found

    async def take(self, lease: Lease, epoch: str) -> Found:
        await self._reach(writes=True)
        found = self._found(lease.user_id, epoch)
        self._check(lease)
        self._broker.logs[lease.user_id].fence = lease.fence
        await self._answered()
        return found

    def _found(self, user_id: str, epoch: str) -> Found:
        fresh = user_id not in self._broker.logs
        log = self._broker.logs.setdefault(user_id, _Log(epoch, self._broker.run))
        return Found(log.state, fresh, intact=log.run == self._broker.run)

    def _check(self, lease: Lease) -> None:
        log = self._broker.logs.get(lease.user_id)
        if log is not None and log.fence > lease.fence:
            raise FencedError(lease.user_id)

    async def begin(self, lease: Lease, state: SharedState) -> None:
        await self._reach(writes=True)
        self._check(lease)
        self._broker.logs[lease.user_id] = _Log(
            state.epoch, self._broker.run, state.head, lease.fence, state.view, state.text_of, state.text
        )
        self._broker.publish(lease.user_id, lambda reader: reader.begun(lease.user_id))
        await self._answered()

    async def append(self, batches: Sequence[Batch]) -> list[Outcome]:
        await self._reach(writes=True)
        outcomes = [self._append(batch) for batch in batches]
        await self._answered()
        return outcomes

    def _append(self, batch: Batch) -> Outcome:
        user_id = batch.lease.user_id
        log = self._broker.logs.get(user_id)
        if log is None:
            return Outcome.LOST
        if log.fence > batch.lease.fence:
            return Outcome.FENCED
        if log.epoch != batch.epoch:
            return Outcome.LOST
        count = len(batch.events)
        if log.head == batch.head + count and log.fence == batch.lease.fence:
            return Outcome.APPENDED
        if log.head != batch.head:
            return Outcome.LOST
        log.fence = batch.lease.fence
        log.events |= dict(enumerate(batch.events, start=log.head + 1))
        log.events = {seq: data for seq, data in log.events.items() if seq > batch.drop}
        log.head += count
        if batch.view is not None:
            log.view = batch.view
        if batch.text_of is not None:
            log.text = batch.text if batch.text_of != log.text_of else log.text + batch.text
            log.text_of = batch.text_of
        news = Published(batch.epoch, batch.head, batch.events, batch.view)
        self._broker.publish(user_id, lambda reader: reader.published(user_id, news))
        return Outcome.APPENDED

    async def read(self, user_id: str, epoch: str, after: int, upto: int) -> tuple[bytes, ...] | None:
        await self._reach()
        log = self._broker.logs.get(user_id)
        found = None
        if log is not None and log.epoch == epoch and all(seq in log.events for seq in range(after + 1, upto + 1)):
            found = tuple(log.events[seq] for seq in range(after + 1, upto + 1))
        await self._answered()
        return found

    async def notify(self, notice: Notice) -> None:
        await self._reach()
        for relay in self._broker.relays:
            if relay is not self and not self._broker.loses_notices:
                relay.tell(lambda reader: reader.noticed(notice))

    async def keep(self, user_ids: Sequence[str]) -> None:
        await self._reach()
