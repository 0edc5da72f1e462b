"""EventRelay on Redis: per user a stream of events, a hash that says where it stands, and the running reply's text.

What is appended is published in the same script, so that followers read it from one connection without asking; the
stream is read only by those who join late or missed something.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import orjson

from server.aio import cancel_and_wait
from server.ports import (
    Batch,
    FencedError,
    Found,
    Lease,
    News,
    Notice,
    Outcome,
    Published,
    RelayReader,
    SharedState,
)
from server.redis_adapter.client import Call, RedisClient, Script
from server.redis_adapter.listener import Listener

KEPT_SECONDS: Final = 600
"""How long a log outlives its last event and its last connection: as long as a client may still resume from it."""

_LOOK, _BEGIN, _APPEND, _READ = map(Script.named, ("look", "begin", "append", "read"))
_BEGUN: Final = b"begun"


class RedisRelay:
    """Implements `server.ports.EventRelay`. `deployment` keeps those apart that share a Redis."""

    def __init__(self, client: RedisClient, deployment: str) -> None:
        self._client = client
        self._prefix = f"chat:1:{deployment}".encode()
        self._instance = secrets.token_hex(8)
        self._notices = self._prefix + b":notices"
        self._listener = Listener(client, self, self._notices)
        self._reader: RelayReader | None = None
        self._connected = asyncio.Event()
        self.is_away = False

    @asynccontextmanager
    async def running(self, reader: RelayReader) -> AsyncIterator[None]:
        self._reader = reader
        listening = asyncio.create_task(self._listener.run(self._probe))
        try:
            await self._connected.wait()  # or the news that it is away
            yield
        finally:
            await cancel_and_wait(listening)

    # -- the connection -----------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        """Whether Redis takes anything: a full one, or a replica, can be connected to all the same."""
        await self._client.bounded(partial(self._client.redis.set, self._prefix + b":probe", self._instance, ex=60))

    def connected(self, again: bool) -> None:
        self._connected.set()
        if self._reader is None:
            return
        if self.is_away:
            self.is_away = False
            self._reader.back()
        elif again:
            self._reader.missed()

    def disconnected(self) -> None:
        self.report_away()

    def report_away(self) -> None:
        if not self.is_away and self._reader is not None:
            self.is_away = True
            self._reader.away()
            self._listener.suspect()
        self._connected.set()

    def heard(self, channel: bytes, data: bytes) -> None:
        if self._reader is None:
            return
        if channel == self._notices:
            self._hear_notice(orjson.loads(data), self._reader)
            return
        user_id = channel.removeprefix(self._prefix + b":{").partition(b"}")[0].decode()
        if data == _BEGUN:
            self._reader.begun(user_id)
            return
        header, view, *events = data.split(b"\n")
        epoch, head, with_view = header.split(b" ")
        news = Published(epoch.decode(), int(head), tuple(events), view if with_view == b"1" else None)
        self._reader.published(user_id, news)

    def _hear_notice(self, said: dict[str, Any], reader: RelayReader) -> None:
        if said["from"] != self._instance:
            event = said["event"] and News(**said["event"])
            reader.noticed(Notice(said["kind"], said["user_id"], said["ended"], event))

    # -- EventRelay ---------------------------------------------------------------------------------------------------

    async def follow(self, user_id: str) -> None:
        await self._listener.subscribe(self._channel(user_id))

    def unfollow(self, user_id: str) -> None:
        self._listener.unsubscribe(self._channel(user_id))

    async def look(self, user_id: str, epoch: str) -> Found:
        return _found(await self._client.run(Call(_LOOK, self._keys(user_id), (epoch, KEPT_SECONDS, ""))))

    async def take(self, lease: Lease, epoch: str) -> Found:
        arguments = (epoch, KEPT_SECONDS, lease.fence)
        answer = await self._client.run(Call(_LOOK, self._keys(lease.user_id), arguments))
        if answer == b"fenced":
            raise FencedError(lease.user_id)
        return _found(answer)

    async def begin(self, lease: Lease, state: SharedState) -> None:
        channel = self._channel(lease.user_id)
        arguments = (lease.fence, KEPT_SECONDS, channel, state.epoch, state.head, state.view, state.text_of, state.text)
        if await self._client.run(Call(_BEGIN, self._keys(lease.user_id), arguments)) == b"fenced":
            raise FencedError(lease.user_id)

    async def append(self, batches: Sequence[Batch]) -> list[Outcome]:
        answers = await self._client.run_all([self._append(batch) for batch in batches])
        return [Outcome(answer.decode()) for answer in answers]

    def _append(self, batch: Batch) -> Call:
        user_id, with_view = batch.lease.user_id, batch.view is not None
        arguments: list[bytes | str | int] = [
            batch.lease.fence,
            KEPT_SECONDS,
            self._channel(user_id),
            batch.epoch,
            batch.head,
            batch.drop,
            int(with_view),
            batch.view or b"",
            batch.text_of or "",
            batch.text,
            *batch.events,
        ]
        return Call(_APPEND, self._keys(user_id), arguments)

    async def read(self, user_id: str, epoch: str, after: int, upto: int) -> tuple[bytes, ...] | None:
        keys = self._keys(user_id)[:2]
        events = await self._client.run(Call(_READ, keys, (epoch, after + 1, upto)))
        return tuple(events) if len(events) == upto - after else None

    async def notify(self, notice: Notice) -> None:
        said = {
            "from": self._instance,
            "kind": notice.kind,
            "user_id": notice.user_id,
            "ended": notice.ended,
            "event": notice.event and asdict(notice.event),
        }
        await self._client.bounded(partial(self._client.redis.publish, self._notices, orjson.dumps(said)))

    async def keep(self, user_ids: Sequence[str]) -> None:
        async def refresh() -> None:
            pipeline = self._client.redis.pipeline(transaction=False)
            for user_id in user_ids:
                for key in self._keys(user_id):
                    pipeline.expire(key, KEPT_SECONDS)
            await pipeline.execute()

        await self._client.bounded(refresh)

    def _keys(self, user_id: str) -> tuple[bytes, bytes, bytes]:
        """All in one slot of a cluster."""
        own = self._prefix + b":{" + user_id.encode() + b"}:"
        return own + b"state", own + b"events", own + b"text"

    def _channel(self, user_id: str) -> bytes:
        return self._prefix + b":{" + user_id.encode() + b"}"


def _found(answer: list[Any]) -> Found:
    fresh, intact, epoch, head, view, text_of, text = answer
    state = SharedState(epoch.decode(), int(head), view, text_of.decode(), text.decode())
    return Found(state, bool(fresh), bool(intact))
