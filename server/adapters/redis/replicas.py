"""ReplicaBackend on Redis: per user a stream of events, a hash with its state, and the running reply's text.

The script that appends events also publishes them, so followers receive them over one connection. The stream is read
only by followers that join later or missed events. One Redis, with or without replicas, no Cluster.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any, Final

import orjson

from server.adapters.redis.client import Call, RedisClient, Script
from server.adapters.redis.listener import Listener
from server.aio import cancel_and_wait
from server.ports import (
    Announcement,
    Append,
    ControlMessage,
    FencedError,
    Lease,
    OpenConnection,
    Published,
    Refusal,
    ReplicaListener,
    ReplicaState,
    Rewrite,
)

TTL_SECONDS: Final = 600
"""TTL of a replica after its last event and its last connection: clients can resume from it for this long."""
CALL_SESSIONS: Final = 64
CALL_BYTES: Final = 256 * 1024
"""The limits of one call of the append script, during which Redis serves no other client."""

_APPEND, _REWRITE, _STATE, _READ = map(Script.named, ("append", "rewrite", "state", "read"))
_NOTHING, _VIEW, _STATE_FOLLOWS = b"nothing", b"view", b"state"
"""The contents of a published message after its header."""
_REFUSALS: Final = {-1: Refusal.FENCED, -2: Refusal.ABSENT}


class RedisReplicas:
    """Implements `server.ports.ReplicaBackend`. `deployment` separates deployments that share a Redis."""

    def __init__(self, client: RedisClient, deployment: str) -> None:
        self._client = client
        self._prefix = f"chat:2:{deployment}".encode()
        self._instance = secrets.token_hex(8)
        self._control = self._prefix + b":control"
        self._listener = Listener(client, self, self._control)
        self._events: ReplicaListener | None = None
        self._connected = asyncio.Event()
        self.is_available = True

    @asynccontextmanager
    async def running(self, listener: ReplicaListener) -> AsyncIterator[None]:
        self._events = listener
        listening = asyncio.create_task(self._listener.run(self._probe))
        try:
            await self._connected.wait()  # or found unavailable
            yield
        finally:
            await cancel_and_wait(listening)

    # The connection

    async def _probe(self) -> None:
        """Raise unless Redis accepts writes: a full one, or a replica, accepts connections only."""
        await self._client.bounded(partial(self._client.redis.set, self._prefix + b":probe", self._instance, ex=60))

    def connected(self, again: bool) -> None:
        self._connected.set()
        if self._events is None:
            return
        if not self.is_available:
            self.is_available = True
            self._events.recovered()
        elif again:
            self._events.missed()

    def disconnected(self) -> None:
        self.report_unavailable()

    def report_unavailable(self) -> None:
        if self.is_available and self._events is not None:
            self.is_available = False
            self._events.unavailable()
            self._listener.suspect()
        self._connected.set()

    def received(self, channel: bytes, data: bytes) -> None:
        if self._events is None:
            return
        if channel == self._control:
            self._receive_control(orjson.loads(data), self._events)
            return
        user_id = channel.removeprefix(self._prefix + b":{").partition(b"}")[0].decode()
        self._events.published(user_id, _published(data))

    def _receive_control(self, fields: dict[str, Any], listener: ReplicaListener) -> None:
        if fields["from"] != self._instance:
            event = fields["event"] and Announcement(**fields["event"])
            listener.received(
                ControlMessage(
                    fields["kind"],
                    fields["user_id"],
                    fields["ended"],
                    event,
                    fields.get("request"),  # absent in messages of the last release
                    tuple(map(_connection, fields.get("connections", ()))),
                )
            )

    # ReplicaBackend

    async def follow(self, user_id: str) -> None:
        await self._listener.subscribe(self._channel(user_id))

    def unfollow(self, user_id: str) -> None:
        self._listener.unsubscribe(self._channel(user_id))

    async def state(self, user_id: str) -> ReplicaState | None:
        return _state(await self._client.run(self._state_call(user_id, "")))

    async def take_over(self, lease: Lease) -> ReplicaState | None:
        answer = await self._client.run(self._state_call(lease.user_id, lease.fence))
        if answer == b"fenced":
            raise FencedError(lease.user_id)
        return _state(answer)

    def _state_call(self, user_id: str, fence: int | str) -> Call:
        state, _, text = self._keys(user_id)
        return Call(_STATE, (state, text), (fence,))

    async def append(self, appends: Sequence[Append]) -> list[int | Refusal]:
        answers = await self._client.run_all(self._append_calls(appends))
        return [_outcome(head) for heads in answers for head in heads]

    def _append_calls(self, appends: Sequence[Append]) -> list[Call]:
        calls: list[list[bytes | str | int]] = []
        sessions = bytes_left = 0
        for append in appends:
            size = sum(map(len, append.events)) + len(append.text)
            if sessions in {0, CALL_SESSIONS} or size > bytes_left:
                calls.append([self._prefix, TTL_SECONDS])
                sessions, bytes_left = 0, CALL_BYTES
            calls[-1] += _arguments(append)
            sessions, bytes_left = sessions + 1, bytes_left - size
        return [Call(_APPEND, (), arguments) for arguments in calls]

    async def rewrite(self, rewrites: Sequence[Rewrite]) -> list[int | Refusal]:
        return [_outcome(head) for head in await self._client.run_all([self._rewrite_call(one) for one in rewrites])]

    def _rewrite_call(self, rewrite: Rewrite) -> Call:
        user_id, state = rewrite.lease.user_id, rewrite.state
        arguments: list[bytes | str | int] = [
            rewrite.lease.fence,
            TTL_SECONDS,
            self._channel(user_id),
            _message_of(rewrite),
            state.epoch,
            state.head,
            state.view,
            state.text_of,
            state.text,
            *rewrite.events,
        ]
        return Call(_REWRITE, self._keys(user_id), arguments)

    async def read(self, user_id: str, epoch: str, after: int, upto: int) -> tuple[bytes, ...] | None:
        keys = self._keys(user_id)[:2]
        events = await self._client.run(Call(_READ, keys, (epoch, after + 1, upto)))
        return tuple(events) if len(events) == upto - after else None

    async def broadcast(self, message: ControlMessage) -> None:
        fields = {
            "from": self._instance,
            "kind": message.kind,
            "user_id": message.user_id,
            "ended": message.ended,
            "event": message.event and asdict(message.event),
            "request": message.request,
            "connections": [asdict(connection) for connection in message.connections],
        }
        await self._client.bounded(partial(self._client.redis.publish, self._control, orjson.dumps(fields)))

    async def keep(self, user_ids: Sequence[str]) -> None:
        async def refresh() -> None:
            pipeline = self._client.redis.pipeline(transaction=False)
            for user_id in user_ids:
                for key in self._keys(user_id):
                    pipeline.expire(key, TTL_SECONDS)
            await pipeline.execute()

        await self._client.bounded(refresh)

    def _keys(self, user_id: str) -> tuple[bytes, bytes, bytes]:
        """The keys of the replica's state, events and text."""
        own = self._prefix + b":{" + user_id.encode() + b"}:"
        return own + b"state", own + b"events", own + b"text"

    def _channel(self, user_id: str) -> bytes:
        return self._prefix + b":{" + user_id.encode() + b"}"


def _arguments(append: Append) -> list[bytes | str | int]:
    """The script's arguments for one append: few, since each costs as much as an event."""
    contents = "nothing" if append.view is None else "view"
    header = (
        f"{append.lease.user_id} {append.lease.fence} {append.epoch} {append.after} {append.trim}"
        f" {contents} {append.text_of or '-'} {len(append.events)}"
    )
    return [header, append.view or b"", append.text, *append.events]


def _message_of(rewrite: Rewrite) -> bytes:
    """The message to followers of a rewritten replica."""
    state = rewrite.state
    after = state.head - len(rewrite.events)
    header = f"{rewrite.lease.fence} {state.epoch} {after} ".encode() + _STATE_FOLLOWS
    return b"\n".join((header, state.view, orjson.dumps((state.text_of, state.text)), *rewrite.events))


def _published(message: bytes) -> Published:
    """Parse a message, in lines: `fence epoch after contents`, the view, and the events (JSON without line breaks)."""
    header, view, *events = message.split(b"\n")
    fence, epoch, after, contents = header.split(b" ")
    state = None
    if contents == _STATE_FOLLOWS:
        text_of, text = orjson.loads(events.pop(0))
        state = ReplicaState(int(fence), epoch.decode(), int(after) + len(events), view, text_of, text)
    view_or_none = None if contents == _NOTHING else view
    return Published(int(fence), epoch.decode(), int(after), tuple(events), view_or_none, state)


def _outcome(head: int) -> int | Refusal:
    return _REFUSALS.get(head, head)


def _state(answer: list[Any] | None) -> ReplicaState | None:
    if answer is None:
        return None
    fence, epoch, head, view, text_of, text = answer
    return ReplicaState(int(fence), epoch.decode(), int(head), view, text_of.decode(), text.decode())


def _connection(fields: dict[str, Any]) -> OpenConnection:
    return OpenConnection(**fields | {"opened_at": datetime.fromisoformat(fields["opened_at"])})
