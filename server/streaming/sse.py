"""Server-Sent Events: a user's whole session on `GET chat/events`, or one turn as the answer to `POST chat/message`.

The handler itself is the writer, cancelled by aiohttp when its client disconnects; events carry their cursor as `id`,
so a browser resumes by Last-Event-ID.
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
    TOKEN_EXPIRED,
    TOO_MANY_CONNECTIONS,
    CloseCode,
    ErrorCode,
)
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.frames import terminal_frame
from server.protocol.limits import Limits
from server.protocol.shapes import Turn, TurnStatus
from server.sessions.events.codec import TERMINAL, Frame
from server.sessions.events.log import LogTrimmedError
from server.sessions.hub import Attachment, RefusedConnectionError, SessionHub, TurnUnsentError
from server.streaming.slots import Slots, too_many_connections
from server.streaming.subscriber import Subscriber, greeting, new_beginning
from server.streaming.tcp import arrived, keep_short


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
        """Everything of the session from `after` on, until shortly before proxies cut requests or the token expires."""
        seal = None if principal.ticket_id is None else partial(self._tickets.proof, principal.ticket_id)
        stream = EventStream(self._limits, can_yield=True, seal=seal)
        async with self._joined(stream, principal, after) as attachment, stream.open(request):
            stream.end_after(self._seconds_left(principal))
            greeted = greeting(attachment, principal.user_id, self._limits)
            response = await stream.write_ready(attachment.subscription.cursor, greeted)
            await stream.relay(attachment, principal.user_id, None, _never)
        return response

    async def send_away(self, request: web.Request, error: PlatformError) -> web.StreamResponse:
        """An empty stream that has an EventSource come back, which gives up for good at any status but 200."""
        stream = EventStream(self._limits, can_yield=False)
        async with stream.open(request) as response:
            pause = error.retry_after_seconds or 1
            code = CloseCode(error.rule.status, error.code, True, error.message)
            await response.write(b"retry: %d\n" % (1000 * pause) + _reconnect(code))
        return response

    async def stream_turn(self, request: web.Request, principal: Principal, new: NewTurn) -> web.StreamResponse:
        """Accept a message and answer with its turn's events to the end. Raises PlatformError if it is refused,
        TurnUnsentError if it is kept but not sent.

        A repeated message finds its turn under way, and what was said of it perhaps no longer kept: `ready` tells it.
        """
        stream, user_id = EventStream(self._limits, can_yield=False), principal.user_id
        async with self._joined(stream, principal, None) as attachment:
            accepted = await self._hub.send(new)
            if accepted.turn.status is TurnStatus.UNSENT and not accepted.duplicate:
                raise TurnUnsentError(accepted.turn)
            headers = {"Location": f"/api/v1/chat/turns/{accepted.turn.id}"}
            async with stream.open(request, headers) as response:
                stream.end_after(self._seconds_left(principal))
                if accepted.turn.status.ended:
                    await response.write(_event(accepted.turn.terminal_event, terminal_frame(accepted.turn)))
                    return response
                if accepted.duplicate:
                    greeted = greeting(attachment, user_id, self._limits, accepted.turn)
                    await stream.write_ready(attachment.subscription.cursor, greeted)
                ended = partial(self._hub.ended, user_id, accepted.turn.id)
                await stream.relay(attachment, user_id, accepted.turn, ended)
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
        stream.subscription = attachment.subscription
        try:
            yield attachment
        finally:
            attachment.session.detach(stream, attachment.subscription)


class EventStream(Subscriber):
    """One response that is written as the session goes on. `seal` gives what follows the cursors of an epoch."""

    __slots__ = (
        *("_comment_due", "_cut_off", "_end", "_limits", "_may_yield_at", "_proof", "_seal", "_sealed", "_transport"),
        "response",
    )

    def __init__(self, limits: Limits, *, can_yield: bool, seal: Callable[[str], str] | None = None) -> None:
        """`can_yield`: whether it may give way to a new connection; a turn's answer ends by itself."""
        super().__init__()
        self._limits = limits
        self._seal = seal
        self._sealed = ("", b"")
        now = asyncio.get_running_loop().time()
        self._may_yield_at = now + limits.stream_age_seconds if can_yield else math.inf
        self._comment_due = False
        self._proof: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None
        self._cut_off: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.response: EventSourceResponse | None = None

    def close(self, code: CloseCode) -> None:
        """The goodbye is the handler's; one that is stuck on a reader who does not read is cut off."""
        if self.closing is None:
            super().close(code)
            self._limit_goodbye()

    def can_give_way(self, now: float) -> bool:
        return self.closing is None and now >= self._may_yield_at

    def prove_yourself(self) -> None:
        """Write a comment, which any client's system acknowledges; where nothing arrives, nobody is there."""
        before = arrived(self._transport)
        if self._proof is None and self.response is not None and before is not None:
            self._comment_due = True
            self._proof = asyncio.get_running_loop().call_later(self._limits.proof_seconds, self._expect_proof, before)
            self.wake()

    def _expect_proof(self, before: int) -> None:
        self._proof, now = None, arrived(self._transport)
        if self._transport is not None and now is not None and now <= before:
            self.close(NO_PONG)
            self._transport.abort()  # nothing more can be said to it

    def _limit_goodbye(self) -> None:
        if self.closing is None or self._transport is None:
            return
        if self.closing is SLOW_CONSUMER:
            self._transport.abort()  # its buffer is full: nothing more can be said to it
        else:
            loop = asyncio.get_running_loop()
            self._cut_off = loop.call_later(self._limits.goodbye_seconds, self._transport.abort)

    def end_after(self, token_seconds: float) -> None:
        """End with `event: reconnect` when the token expires, and before a proxy would cut a long request."""
        lifetime = self._limits.sse_lifetime_seconds
        seconds, code = (token_seconds, TOKEN_EXPIRED) if token_seconds < lifetime else (lifetime, _LONG_ENOUGH)
        self._end = asyncio.get_running_loop().call_later(max(seconds, 0.0), self.close, code)

    @asynccontextmanager
    async def open(
        self, request: web.Request, headers: dict[str, str] | None = None
    ) -> AsyncIterator[EventSourceResponse]:
        """Send the headers; at the end finish the response and stop everything that was set up for it."""
        response = EventSourceResponse(
            headers=headers,
            ping_interval=self._limits.sse_comment_seconds,
            allow_all_methods=True,
        )
        # A proxy that compressed the stream would hold it back until it ends.
        response.headers["Cache-Control"] = "no-store, no-transform"
        self._transport = request.transport
        if self._transport is not None:
            keep_short(self._transport)
        self._limit_goodbye()
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
            for timer in (self._end, self._cut_off, self._proof):
                if timer is not None:
                    timer.cancel()

    async def write_ready(self, cursor: EventCursor, ready: bytes) -> EventSourceResponse:
        """Its cursor is an id as well: a stream on which nothing else comes can be resumed, too."""
        assert self.response is not None
        await self.response.write(b"id: %b:%d%b\n" % self._id(cursor.epoch, cursor.seq) + _event("ready", ready))
        return self.response

    def _id(self, epoch: str, seq: int) -> tuple[bytes, int, bytes]:
        """Epoch, number and proof of an id."""
        if self._seal is not None and self._sealed[0] != epoch:
            self._sealed = epoch, f":{self._seal(epoch)}".encode()
        return epoch.encode(), seq, self._sealed[1]

    async def relay(
        self, attachment: Attachment, user_id: str, turn: Turn | None, ended: Callable[[], Awaitable[Turn | None]]
    ) -> None:
        """Write events until the stream is closed or, given a turn, until the end of its attempt.

        `ended` is that turn once it has ended: where the log began anew, the event that told so may be lost.
        """
        subscription, response = attachment.subscription, self.response
        assert response is not None
        while self.closing is None:
            if self._comment_due:
                self._comment_due = False
                await response.write(_COMMENT)
            if subscription.is_lost:
                beginning = new_beginning(attachment, user_id, self._limits, turn)
                await self.write_ready(subscription.cursor, beginning)
                if turn is not None and (over := await ended()) is not None:
                    await response.write(_event(over.terminal_event, terminal_frame(over)))
                    return
                continue
            epoch = subscription.epoch
            try:
                frames = subscription.take()
            except LogTrimmedError:
                self.close(SLOW_CONSUMER)
                return
            wanted = frames if turn is None else [frame for frame in frames if _belongs(frame, turn)]
            if wanted:
                await response.write(b"".join([_numbered(self._id(epoch, frame.seq), frame) for frame in wanted]))
            if turn is not None and any(frame.type in TERMINAL for frame in wanted):
                return
            if not (subscription.has_more or self._comment_due) and self.closing is None:
                await self.woken()
        await response.write(_reconnect(self.closing))


async def _never() -> None:
    """No single turn is waited for."""


_COMMENT: Final = b":\n\n"
_LONG_ENOUGH = CloseCode(1012, "reconnect", True, "The stream is renewed before a proxy cuts it.")


def _belongs(frame: Frame, turn: Turn) -> bool:
    return frame.turn_id == turn.id and frame.attempt == turn.attempt


def _event(type_: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (type_.encode(), data)


def _numbered(id_: tuple[bytes, int, bytes], frame: Frame) -> bytes:
    return b"id: %b:%d%b\nevent: %b\ndata: %b\n\n" % (*id_, frame.type.encode(), frame.data)


def _reconnect(code: CloseCode) -> bytes:
    body = orjson.dumps({"type": "reconnect", "reason": code.reason, "reconnect": code.reconnect})
    return _event("reconnect", body)
