"""What Redis tells this instance, over one connection that is watched, and made and subscribed anew when it breaks."""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Final, Protocol

import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from server.adapters.redis.client import RedisClient
from server.aio import cancel_and_wait
from server.ports import ReplicasUnavailableError

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0
PING_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 2.0
"""How long a broken connection is tried again before Redis counts as unavailable."""
RETRY_SECONDS: Final = 0.25
BROKEN: Final = (RedisError, OSError, TimeoutError, ReplicasUnavailableError)


class Watcher(Protocol):
    """Who is told. Never waits."""

    def heard(self, channel: bytes, data: bytes) -> None: ...

    def connected(self, again: bool) -> None:
        """Everything published from now on is heard. `again`: something may have been missed."""

    def disconnected(self) -> None:
        """It cannot be connected to, for some time already."""


class Listener:
    """Run `run` for as long as something is to be heard. `base` are the channels that are always heard."""

    def __init__(self, client: RedisClient, watcher: Watcher, base: bytes) -> None:
        self._client = client
        self._watcher = watcher
        self._wanted = {base}
        self._confirmed: dict[bytes, asyncio.Future[None]] = {}
        self._pubsub: PubSub | None = None
        self._connected = asyncio.Event()
        self._suspected = asyncio.Event()

    async def subscribe(self, channel: bytes) -> None:
        """Return when what is published there is heard. Raises ReplicasUnavailableError."""
        self._wanted.add(channel)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while not await self._is_heard(channel):
                    await self._connected.wait()
        except BROKEN as error:
            self.suspect()
            raise ReplicasUnavailableError("Redis does not confirm a subscription") from error

    async def _is_heard(self, channel: bytes) -> bool:
        """False: the connection broke meanwhile; the next one hears it."""
        if self._pubsub is None:
            return False
        confirmed = self._confirmed.get(channel)
        if confirmed is None:
            confirmed = self._confirmed[channel] = asyncio.get_running_loop().create_future()
            await self._pubsub.subscribe(channel)
        await asyncio.wait({confirmed})
        return not confirmed.cancelled()

    def unsubscribe(self, channel: bytes) -> None:
        """Hear no more of it: at once here, and soon in Redis."""
        self._wanted.discard(channel)

    def suspect(self) -> None:
        """Somebody could not reach Redis: connect anew."""
        self._suspected.set()

    async def run(self, probe: Callable[[], Awaitable[None]]) -> None:
        """`probe` raises ReplicasUnavailableError while Redis can be connected to and yet does not serve."""
        clock = asyncio.get_running_loop().time
        served_before, broken_at = False, clock()
        while True:
            self._suspected.clear()
            try:
                async with self._client.redis.pubsub() as pubsub:
                    await self._connect(pubsub)
                    await probe()
                    self._watcher.connected(again=served_before)
                    served_before, broken_at = True, inf
                    await self._hear(pubsub)
            except BROKEN as error:
                if broken_at == inf:
                    log.warning("redis.connection_broken", reason=type(error).__name__)
            finally:
                self._disconnect()
            broken_at = min(broken_at, clock())
            if clock() - broken_at >= PATIENCE_SECONDS:
                self._watcher.disconnected()
            await asyncio.sleep(RETRY_SECONDS)

    async def _connect(self, pubsub: PubSub) -> None:
        """Subscribe to all that is wanted by now; what is wanted later is subscribed to by whoever wants it."""
        channels = frozenset(self._wanted)
        async with asyncio.timeout(ANSWER_SECONDS):
            await pubsub.subscribe(*channels)
            missing = set(channels)
            while missing:
                message = await pubsub.get_message(timeout=ANSWER_SECONDS)
                if message is not None and message["type"] == "subscribe":
                    missing.discard(message["channel"])
        for channel in channels:
            self._confirmed[channel] = asyncio.get_running_loop().create_future()
            self._confirmed[channel].set_result(None)
        self._pubsub = pubsub
        self._connected.set()

    def _disconnect(self) -> None:
        self._pubsub = None
        self._connected.clear()
        for confirmed in self._confirmed.values():
            confirmed.cancel()
        self._confirmed.clear()

    async def _hear(self, pubsub: PubSub) -> None:
        """Returns when somebody suspects the connection. Raises whatever ends it otherwise."""
        suspected = asyncio.ensure_future(self._suspected.wait())
        reading = asyncio.ensure_future(self._read(pubsub))
        try:
            await asyncio.wait({suspected, reading}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                await reading
        finally:
            await cancel_and_wait(suspected, reading)

    async def _read(self, pubsub: PubSub) -> None:
        silent = 0.0
        while True:
            unwanted = [channel for channel in self._confirmed if channel not in self._wanted]
            for channel in unwanted:
                self._confirmed.pop(channel).cancel()
            if unwanted:
                await pubsub.unsubscribe(*unwanted)
            message = await pubsub.get_message(timeout=LOOK_SECONDS)
            if message is not None:
                silent = 0.0
                self._take(message)
                continue
            silent += LOOK_SECONDS
            if silent >= PING_SECONDS + ANSWER_SECONDS:
                raise RedisConnectionError("no answer to a PING")
            if silent >= PING_SECONDS:
                await pubsub.ping()

    def _take(self, message: dict[str, Any]) -> None:
        channel = message["channel"]
        if message["type"] == "subscribe":
            confirmed = self._confirmed.get(channel)
            if confirmed is not None and not confirmed.done():
                confirmed.set_result(None)
        elif message["type"] == "message" and channel in self._wanted:
            self._watcher.heard(channel, message["data"])
