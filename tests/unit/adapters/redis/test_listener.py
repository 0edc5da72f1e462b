"""The listener for published messages: it can be cancelled at any time, and notices a connection that is silent."""

import asyncio
from types import TracebackType
from typing import Any, cast

from server.adapters.redis.client import RedisClient
from server.adapters.redis.listener import Listener
from server.aio import cancel_and_wait
from tests.virtual_time import virtual_time

BASE = b"base"
QUIET_SECONDS = 60.0


class _PubSub:
    """A subscribed connection. It can swallow one cancellation, as if that were its own timeout, and answer pings."""

    def __init__(self, *, swallows: bool = False, answers: bool = True) -> None:
        self.waiting = asyncio.Event()
        self.swallows = swallows
        self.channels: set[bytes] = set()
        self.pings = 0
        self._answers = answers
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def __aenter__(self) -> "_PubSub":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def subscribe(self, *channels: bytes) -> None:
        for channel in channels:
            self.channels.add(channel)
            self._messages.put_nowait({"type": "subscribe", "channel": channel})

    async def unsubscribe(self, *channels: bytes) -> None:
        self.channels -= set(channels)

    async def ping(self) -> None:
        self.pings += 1
        if self._answers:
            self._messages.put_nowait({"type": "pong", "channel": None})

    def publish(self, channel: bytes, data: bytes) -> None:
        self._messages.put_nowait({"type": "message", "channel": channel, "data": data})

    async def get_message(self, timeout: float | None) -> dict[str, Any] | None:
        if self._messages.empty():
            self.waiting.set()
        try:
            return await self._messages.get()
        except asyncio.CancelledError:
            if not self.swallows:
                raise
            self.swallows = False
        return None


class _Redis:
    """Every connection is the same."""

    def __init__(self, pubsub: _PubSub) -> None:
        self.redis = self
        self.connections = 0
        self._pubsub = pubsub

    def pubsub(self) -> _PubSub:
        self.connections += 1
        return self._pubsub


class _Watcher:
    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def received(self, channel: bytes, data: bytes) -> None:
        self.messages.append(data)

    def connected(self, again: bool) -> None: ...

    def disconnected(self) -> None: ...


class _Lab:
    """A listener that runs on one fake connection."""

    def __init__(self, pubsub: _PubSub) -> None:
        self.pubsub, self.redis, self.watcher = pubsub, _Redis(pubsub), _Watcher()
        self.listener = Listener(cast("RedisClient", self.redis), self.watcher, BASE)
        self.task = asyncio.create_task(self.listener.run(self._serves))

    async def __aenter__(self) -> "_Lab":
        await self.pubsub.waiting.wait()
        return self

    async def __aexit__(self, *error: object) -> None:
        await cancel_and_wait(self.task)

    async def _serves(self) -> None:
        pass


@virtual_time
async def test_a_listener_ends_although_its_library_swallows_a_cancellation() -> None:
    async with _Lab(_PubSub(swallows=True)) as lab:
        pass
    assert lab.task.cancelled()
    assert not lab.pubsub.swallows


@virtual_time
async def test_a_silent_connection_is_pinged_and_kept_as_long_as_it_answers() -> None:
    async with _Lab(_PubSub()) as lab:
        await asyncio.sleep(QUIET_SECONDS)
        assert lab.pubsub.pings > 0
        assert lab.redis.connections == 1
        lab.pubsub.publish(BASE, b"hello")
        await lab.pubsub.waiting.wait()
        await asyncio.sleep(0)
        assert lab.watcher.messages == [b"hello"]


@virtual_time
async def test_a_connection_that_answers_no_ping_is_replaced_also_after_a_message() -> None:
    async with _Lab(_PubSub(answers=False)) as lab:
        lab.pubsub.publish(BASE, b"hello")
        await asyncio.sleep(QUIET_SECONDS)
        assert lab.redis.connections > 1


@virtual_time
async def test_a_connection_that_receives_is_not_pinged() -> None:
    async with _Lab(_PubSub()) as lab:
        for _ in range(int(QUIET_SECONDS)):
            lab.pubsub.publish(BASE, b"hello")
            await asyncio.sleep(1)
        assert lab.pubsub.pings == 0


@virtual_time
async def test_a_channel_is_unsubscribed_from_at_its_next_message() -> None:
    async with _Lab(_PubSub()) as lab:
        await lab.listener.subscribe(b"ann")
        lab.listener.unsubscribe(b"ann")
        lab.pubsub.publish(b"ann", b"unwanted")
        lab.pubsub.waiting.clear()
        await lab.pubsub.waiting.wait()
        assert lab.pubsub.channels == {BASE}
        assert lab.watcher.messages == []


@virtual_time
async def test_a_channel_without_messages_is_unsubscribed_from_unless_it_is_wanted_again() -> None:
    async with _Lab(_PubSub()) as lab:
        for channel in (b"ann", b"bob"):
            await lab.listener.subscribe(channel)
            lab.listener.unsubscribe(channel)
        await lab.listener.subscribe(b"bob")
        await asyncio.sleep(QUIET_SECONDS)
        assert lab.pubsub.channels == {BASE, b"bob"}
