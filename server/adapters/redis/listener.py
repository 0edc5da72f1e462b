"""Receives published messages over one monitored connection, which is reopened and resubscribed when it breaks."""

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

CHECK_SECONDS: Final = 1.0
PING_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 2.0
UNAVAILABLE_AFTER_SECONDS: Final = 2.0
"""How long reconnecting may take before Redis counts as unavailable."""
RETRY_SECONDS: Final = 0.25
BROKEN: Final = (RedisError, OSError, TimeoutError, ReplicasUnavailableError)


class Watcher(Protocol):
    """Callbacks of the listener. They do not block."""

    def received(self, channel: bytes, data: bytes) -> None: ...

    def connected(self, again: bool) -> None:
        """Everything published from now on is received. `again`: messages may have been missed since a disconnect."""

    def disconnected(self) -> None:
        """Reconnecting has failed for `UNAVAILABLE_AFTER_SECONDS` or more. Called after each further attempt."""


class Listener:
    """`run` it for as long as messages should be received. `base` is the channel that is always subscribed to."""

    def __init__(self, client: RedisClient, watcher: Watcher, base: bytes) -> None:
        self._client = client
        self._watcher = watcher
        self._wanted = {base}
        self._confirmed: dict[bytes, asyncio.Future[None]] = {}
        self._pubsub: PubSub | None = None
        self._connected = asyncio.Event()
        self._suspected = asyncio.Event()
        self._has_received = False

    async def subscribe(self, channel: bytes) -> None:
        """Return when the subscription is confirmed. Raises ReplicasUnavailableError."""
        self._wanted.add(channel)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while not await self._is_confirmed(channel):
                    await self._connected.wait()
        except BROKEN as error:
            self.suspect()
            raise ReplicasUnavailableError("Redis does not confirm a subscription") from error

    async def _is_confirmed(self, channel: bytes) -> bool:
        """Wait for the confirmation. Returns False if the connection broke; the next one subscribes."""
        if self._pubsub is None:
            return False
        confirmed = self._confirmed.get(channel)
        if confirmed is None:
            confirmed = self._confirmed[channel] = asyncio.get_running_loop().create_future()
            await self._pubsub.subscribe(channel)
        await asyncio.wait({confirmed})
        return not confirmed.cancelled()

    def unsubscribe(self, channel: bytes) -> None:
        """Pass on no more of its messages. UNSUBSCRIBE is sent to Redis when the next one arrives, but no later than
        `CHECK_SECONDS` from now."""
        self._wanted.discard(channel)

    def suspect(self) -> None:
        """Reconnect, because a call could not reach Redis."""
        self._suspected.set()

    async def run(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Run until cancelled. `probe` raises ReplicasUnavailableError while Redis accepts no writes."""
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
                    await self._receive(pubsub)
            except BROKEN as error:
                if broken_at == inf:
                    log.warning("redis.connection_broken", reason=type(error).__name__)
            finally:
                self._disconnect()
            broken_at = min(broken_at, clock())
            if clock() - broken_at >= UNAVAILABLE_AFTER_SECONDS:
                self._watcher.disconnected()
            await asyncio.sleep(RETRY_SECONDS)

    async def _connect(self, pubsub: PubSub) -> None:
        """Subscribe to all channels wanted so far; `subscribe` adds later ones."""
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

    async def _receive(self, pubsub: PubSub) -> None:
        """Receive until `suspect` is called. Raises the error that breaks the connection."""
        works = (self._suspected.wait(), self._read(pubsub), self._check(pubsub))
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                await task
        finally:
            await cancel_and_wait(*tasks)

    async def _read(self, pubsub: PubSub) -> None:
        """Without a timeout, which would cost half as much as the message: `_check` notices the silence."""
        while True:
            message = await pubsub.get_message(timeout=None)
            if message is not None:
                self._has_received = True
                self._handle(message)
                if message["type"] == "message" and message["channel"] not in self._wanted:
                    await self._unsubscribe_unwanted(pubsub)

    async def _check(self, pubsub: PubSub) -> None:
        """Unsubscribe from what is no longer wanted, and ping a silent connection. Raises RedisConnectionError."""
        silent = 0.0
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await self._unsubscribe_unwanted(pubsub)
            silent, self._has_received = (0.0 if self._has_received else silent + CHECK_SECONDS), False
            if silent >= PING_SECONDS + ANSWER_SECONDS:
                raise RedisConnectionError("no answer to a PING")
            if silent >= PING_SECONDS:
                await pubsub.ping()

    async def _unsubscribe_unwanted(self, pubsub: PubSub) -> None:
        unwanted = [channel for channel in self._confirmed if channel not in self._wanted]
        for channel in unwanted:
            self._confirmed.pop(channel).cancel()
        if unwanted:
            await pubsub.unsubscribe(*unwanted)

    def _handle(self, message: dict[str, Any]) -> None:
        channel = message["channel"]
        if message["type"] == "subscribe":
            confirmed = self._confirmed.get(channel)
            if confirmed is not None and not confirmed.done():
                confirmed.set_result(None)
        elif message["type"] == "message" and channel in self._wanted:
            try:
                self._watcher.received(channel, message["data"])
            except Exception:  # of another release, or not ours: it must not end the listener
                log.exception("redis.message_ignored")
