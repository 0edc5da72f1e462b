"""Server-Sent Events: a user's whole session on `GET chat/events`, or one turn as the response to `POST chat/message`.

The request handler is the writer; aiohttp cancels it when the client disconnects. Each event carries its cursor as
`id`, so a browser resumes with Last-Event-ID.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Final

import orjson
from aiohttp import web
from aiohttp_sse import EventSourceResponse

from server.auth.tickets import Tickets
from server.ports import NewTurn, Principal
from server.protocol.codes import (
    NO_PONG,
    SLOW_CONSUMER,
    TOO_MANY_CONNECTIONS,
    CloseCode,
    ErrorCode,
)
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.frames import terminal_frame
from server.protocol.limits import Limits
from server.protocol.shapes import Turn, TurnStatus
from server.sessions.events.codec import TERMINAL, Entry
from server.sessions.events.log import LogTrimmedError, Subscription
from server.sessions.hub import Attachment, RefusedConnectionError, SessionHub, TurnUnsentError
from server.sessions.session import Session
from server.streaming.slots import Slots, too_many_connections
from server.streaming.subscriber import Subscriber, expiry_code, ready_on_attach, ready_on_new_epoch
from server.streaming.tcp import acknowledged_bytes, limit_buffers


class EventStreams:
    """Opens event streams on the users' sessions."""

    def __init__(
        self,
        hub: SessionHub,
        limits: Limits,
        tickets: Tickets,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._hub = hub
        self._slots = Slots(hub, limits)
        self._limits = limits
        self._tickets = tickets
        self._now = now

    async def stream_session(
        self, request: web.Request, principal: Principal, after: EventCursor | None
    ) -> web.StreamResponse:
        """Stream the session's events from `after` on, until the token expires or `sse_lifetime_seconds` have passed,
        which is before proxies cut long requests."""
        prove_epoch = None if principal.ticket_id is None else partial(self._tickets.proof, principal.ticket_id)
        stream = EventStream(self._limits, evictable=True, prove_epoch=prove_epoch)
        async with self._joined(stream, principal, after) as attachment, stream.open(request):
            stream.end_after(self._seconds_left(principal), expiry_code(principal))
            ready = ready_on_attach(attachment, principal.user_id, self._limits)
            response = await stream.write_ready(attachment.subscription.cursor, ready)
            await stream.relay(attachment.session, attachment.subscription, None, _never_ended)
        return response

    async def ask_to_reconnect(self, request: web.Request, error: PlatformError) -> web.StreamResponse:
        """Answer `error` by an empty stream with status 200 that ends with `reconnect`: an EventSource never retries
        after another status."""
        stream = EventStream(self._limits, evictable=False)
        async with stream.open(request) as response:
            pause = error.retry_after_seconds or 1
            code = CloseCode(error.rule.status, error.code, True, error.message)
            await response.write(b"retry: %d\n" % (1000 * pause) + _reconnect(code))
        return response

    async def stream_turn(self, request: web.Request, principal: Principal, new: NewTurn) -> web.StreamResponse:
        """Accept a message and stream its turn's events to the end. Raises PlatformError if it is refused,
        TurnUnsentError if it is stored but not sent.

        For a repeated message the turn may be running already, and its earlier events trimmed: a `ready` event carries
        the state of the turn.
        """
        stream, user_id = EventStream(self._limits, evictable=False), principal.user_id
        async with self._joined(stream, principal, None) as attachment:
            accepted = await self._hub.send(new)
            if accepted.turn.status is TurnStatus.UNSENT and not accepted.duplicate:
                raise TurnUnsentError(accepted.turn)
            headers = {"Location": f"/api/v1/chat/turns/{accepted.turn.id}"}
            async with stream.open(request, headers) as response:
                stream.end_after(self._seconds_left(principal), expiry_code(principal))
                if accepted.turn.status.ended:
                    await response.write(_event(accepted.turn.terminal_event, terminal_frame(accepted.turn)))
                    return response
                if accepted.duplicate:
                    ready = ready_on_attach(attachment, user_id, self._limits, accepted.turn)
                    await stream.write_ready(attachment.subscription.cursor, ready)
                ended = partial(self._hub.turn_if_ended, user_id, accepted.turn.id)
                await stream.relay(attachment.session, attachment.subscription, accepted.turn, ended)
        return response

    def _seconds_left(self, principal: Principal) -> float:
        return (principal.expires_at - self._now()).total_seconds()

    @asynccontextmanager
    async def _joined(
        self, stream: "EventStream", principal: Principal, after: EventCursor | None
    ) -> AsyncIterator[Attachment]:
        try:
            attachment = await self._slots.attach(principal.user_id, stream, after)
        except RefusedConnectionError as refused:
            if refused.code is TOO_MANY_CONNECTIONS:
                raise too_many_connections() from refused
            raise PlatformError(ErrorCode.DRAINING, retry_after=1.0) from refused
        stream.credential, stream.opened_at = principal.credential, self._now()
        stream.subscription = attachment.subscription
        try:
            yield attachment
        finally:
            attachment.session.detach(stream, attachment.subscription)


class EventStream(Subscriber):
    """One response, to which the session's events are written. `prove_epoch` gives the proof of an epoch's cursors."""

    kind = "events"

    __slots__ = (
        *("_abort_timer", "_comment_due", "_end", "_epoch_proof", "_evictable_at", "_limits", "_probe_timer"),
        *("_prove_epoch", "_turn", "_waiter", "response"),
    )

    def __init__(self, limits: Limits, *, evictable: bool, prove_epoch: Callable[[str], str] | None = None) -> None:
        """`evictable`: whether it may be evicted for a new connection. A turn's stream may not: it ends by itself."""
        super().__init__()
        self._limits = limits
        self._prove_epoch = prove_epoch
        self._epoch_proof = ("", b"")
        now = asyncio.get_running_loop().time()
        self._evictable_at = now + limits.stream_age_seconds if evictable else math.inf
        self._comment_due = False
        self._probe_timer: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None
        self._turn: Turn | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self.response: EventSourceResponse | None = None

    @property
    def is_writing(self) -> bool:
        return self._waiter is None

    def wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def close(self, code: CloseCode) -> None:
        """The handler writes the last event. After `close_seconds`, for a client that does not read, the transport is
        aborted."""
        if self.closing is None:
            super().close(code)
            self._limit_close()

    def is_evictable(self, now: float) -> bool:
        return self.closing is None and now >= self._evictable_at

    def probe(self) -> None:
        """Write a comment. If TCP acknowledges nothing within `probe_seconds`, the client is gone."""
        before = acknowledged_bytes(self.transport)
        if self._probe_timer is None and self.response is not None and before is not None:
            self._comment_due = True
            self._probe_timer = asyncio.get_running_loop().call_later(
                self._limits.probe_seconds, self._check_probe, before
            )
            self.wake()

    def _check_probe(self, before: int) -> None:
        self._probe_timer, now = None, acknowledged_bytes(self.transport)
        if self.transport is not None and now is not None and now <= before:
            self.close(NO_PONG)
            self.transport.abort()  # a last event would not arrive either

    def _limit_close(self) -> None:
        if self.closing is None or self.transport is None:
            return
        if self.closing is SLOW_CONSUMER:
            self.transport.abort()  # its buffer is full: a last event would not arrive
        else:
            loop = asyncio.get_running_loop()
            self._abort_timer = loop.call_later(self._limits.close_seconds, self.transport.abort)

    def end_after(self, token_seconds: float, expired: CloseCode) -> None:
        """End with `event: reconnect` when the token expires or `sse_lifetime_seconds` have passed."""
        lifetime = self._limits.sse_lifetime_seconds
        seconds, code = (token_seconds, expired) if token_seconds < lifetime else (lifetime, _LIFETIME_REACHED)
        self._end = asyncio.get_running_loop().call_later(max(seconds, 0.0), self.close, code)

    @asynccontextmanager
    async def open(
        self, request: web.Request, headers: dict[str, str] | None = None
    ) -> AsyncIterator[EventSourceResponse]:
        """Send the headers; on exit finish the response and cancel its timers."""
        response = EventSourceResponse(
            headers=headers,
            ping_interval=self._limits.sse_comment_seconds,
            allow_all_methods=True,
        )
        # A proxy that compresses the stream buffers it to its end.
        response.headers["Cache-Control"] = "no-store, no-transform"
        self.transport = request.transport
        if self.transport is not None:
            limit_buffers(self.transport)
        self._limit_close()
        try:
            await response.prepare(request)
            self.response = response
            with suppress(ConnectionError):
                yield response
                response.stop_streaming()
                await response.write_eof()
        finally:
            if response.prepared:
                response.stop_streaming()
            for timer in (self._end, self._abort_timer, self._probe_timer):
                if timer is not None:
                    timer.cancel()

    async def write_ready(self, cursor: EventCursor, ready: bytes) -> EventSourceResponse:
        """Write a `ready` event with its cursor as id, so that a stream without further events can be resumed."""
        assert self.response is not None
        await self.response.write(b"id: %b:%d%b\n" % self._id(cursor.epoch, cursor.seq) + _event("ready", ready))
        return self.response

    def _id(self, epoch: str, seq: int) -> tuple[bytes, int, bytes]:
        """The parts of an event id: epoch, sequence number and proof."""
        if self._prove_epoch is not None and self._epoch_proof[0] != epoch:
            self._epoch_proof = epoch, f":{self._prove_epoch(epoch)}".encode()
        return epoch.encode(), seq, self._epoch_proof[1]

    async def send(self, entry: Entry) -> None:
        if self.response is not None and (self._turn is None or _belongs(entry, self._turn)):
            await self.response.write(self._numbered(entry))

    def _numbered(self, entry: Entry) -> bytes:
        assert self.subscription is not None
        id_ = self._id(self.subscription.epoch, entry.seq)
        return b"id: %b:%d%b\nevent: %b\ndata: %b\n\n" % (*id_, entry.type.encode(), entry.data)

    async def relay(
        self,
        session: Session,
        subscription: Subscription,
        turn: Turn | None,
        ended: Callable[[], Awaitable[Turn | None]],
    ) -> None:
        """Write events until the stream is closed or, given a turn, until the end of its attempt.

        `ended` returns that turn once it has ended: in a new epoch, its terminal event may be missing from the log.
        """
        self._turn = turn
        response = self.response
        assert response is not None
        while self.closing is None:
            if self._comment_due:
                self._comment_due = False
                await response.write(_COMMENT)
            if subscription.is_lost:
                ready = ready_on_new_epoch(session, subscription, self._limits, turn)
                await self.write_ready(subscription.cursor, ready)
                if turn is not None and (over := await ended()) is not None:
                    await response.write(_event(over.terminal_event, terminal_frame(over)))
                    return
                continue
            try:
                entries = subscription.take()
            except LogTrimmedError:
                self.close(SLOW_CONSUMER)
                return
            wanted = entries if turn is None else [entry for entry in entries if _belongs(entry, turn)]
            if wanted:
                await response.write(b"".join(map(self._numbered, wanted)))
            if turn is not None and any(entry.type in TERMINAL for entry in wanted):
                return
            if not (subscription.has_more or self._comment_due) and self.closing is None:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        await response.write(_reconnect(self.closing))


async def _never_ended() -> None:
    """The `ended` of a stream that follows no single turn."""


_COMMENT: Final = b":\n\n"
_LIFETIME_REACHED = CloseCode(1012, "reconnect", True, "The stream is renewed before a proxy cuts it.")


def _belongs(entry: Entry, turn: Turn) -> bool:
    return entry.of == (turn.id, turn.attempt)


def _event(type_: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (type_.encode(), data)


def _reconnect(code: CloseCode) -> bytes:
    body = orjson.dumps({"type": "reconnect", "reason": code.reason, "reconnect": code.reconnect})
    return _event("reconnect", body)
