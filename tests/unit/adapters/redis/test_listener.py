"""The listener for published messages: it can be cancelled at any time."""

import asyncio
from types import TracebackType
from typing import Any, cast

from server.adapters.redis.client import RedisClient
from server.adapters.redis.listener import Listener
from server.aio import cancel_and_wait
from tests.virtual_time import virtual_time

BASE = b"base"


class _DeafPubSub:
    """A subscribed connection without messages. It swallows one cancellation, as if it were its own timeout."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.swallowed = 0
        self._confirmations: list[bytes] = []

    async def __aenter__(self) -> "_DeafPubSub":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def subscribe(self, *channels: bytes) -> None:
        self._confirmations += channels

    async def ping(self) -> None:
        pass

    async def get_message(self, timeout: float) -> dict[str, Any] | None:
        if self._confirmations:
            return {"type": "subscribe", "channel": self._confirmations.pop()}
        self.waiting.set()
        try:
            await asyncio.sleep(timeout)
        except asyncio.CancelledError:
            if self.swallowed:
                raise
            self.swallowed += 1
        return None


class _Redis:
    def __init__(self, pubsub: _DeafPubSub) -> None:
        self.redis = self
        self._pubsub = pubsub

    def pubsub(self) -> _DeafPubSub:
        return self._pubsub


class _Watcher:
    def received(self, channel: bytes, data: bytes) -> None: ...

    def connected(self, again: bool) -> None: ...

    def disconnected(self) -> None: ...


async def _serves() -> None:
    pass


@virtual_time
async def test_a_listener_ends_although_its_library_swallows_a_cancellation() -> None:
    pubsub = _DeafPubSub()
    listener = Listener(cast("RedisClient", _Redis(pubsub)), _Watcher(), BASE)
    listening = asyncio.create_task(listener.run(_serves))
    await pubsub.waiting.wait()
    await cancel_and_wait(listening)
    assert listening.cancelled()
    assert pubsub.swallowed == 1
