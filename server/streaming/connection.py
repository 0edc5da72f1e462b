"""An authenticated WebSocket: a reader, and a writer that exists only while there is something to write."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from aiohttp import WSMessage, WSMsgType, web

from server.aio import cancel_and_wait, run_now
from server.ports import NewTurn, Principal
from server.protocol.codes import (
    ACCOUNT_CLOSED,
    SLOW_CONSUMER,
    UNAUTHORIZED,
    CloseCode,
    ErrorCode,
)
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.frames import (
    AnyClientFrame,
    AuthFrame,
    CancelFrame,
    MessageFrame,
    PingFrame,
    RetryFrame,
    ack_frame,
    error_frame,
    parse_client_frame,
    pong_frame,
    terminal_frame,
)
from server.protocol.limits import Limits
from server.protocol.shapes import Turn
from server.sessions.events.codec import Entry
from server.sessions.events.log import LogTrimmedError, Subscription
from server.sessions.hub import SessionHub
from server.sessions.session import Session
from server.streaming.keepalive import Keepalive
from server.streaming.slots import Slots
from server.streaming.subscriber import Subscriber, expiry_code, ready_on_attach, ready_on_new_epoch
from server.streaming.tcp import limit_buffers
from server.streaming.timers import Timer, Timers

log = structlog.get_logger(__name__)

_MAX_UNREAD_RESPONSES = 256


class WebSocketConnection(Subscriber):
    """An authenticated socket. `serve` returns when the connection has ended, by either side."""

    kind = "websocket"

    __slots__ = (
        "_authenticate",
        "_expiry",
        "_hub",
        "_is_sending",
        "_keepalive",
        "_limits",
        "_now",
        "_principal",
        "_responses",
        "_session",
        "_slots",
        "_socket",
        "_timers",
        "_writer",
        "is_executing",
    )

    def __init__(
        self,
        socket: web.WebSocketResponse,
        principal: Principal,
        *,
        hub: SessionHub,
        slots: Slots,
        authenticate: Callable[[str], Awaitable[Principal]],
        limits: Limits,
        now: Callable[[], datetime],
        timers: Timers,
    ) -> None:
        """`authenticate` checks a new token from this client. Raises PlatformError."""
        super().__init__()
        self._socket = socket
        self._hub = hub
        self._slots = slots
        self._authenticate = authenticate
        self._limits = limits
        self._now = now
        self._timers = timers
        self._principal = principal
        self.credential = principal.credential
        self.opened_at = now()
        self._responses: list[bytes] = []
        self.is_executing = False
        self._expiry: Timer | None = None
        self._keepalive: Keepalive
        self._session: Session | None = None
        self._is_sending = False
        self._writer: asyncio.Task[None] | None = None

    async def serve(
        self, after: EventCursor | None, transport: asyncio.Transport | None, joined: Callable[[], None]
    ) -> None:
        """Attach to the session, call `joined`, and carry frames both ways until the connection ends.

        Raises RefusedConnectionError or PlatformError if it cannot attach.
        """
        self.transport = transport
        if transport is not None:
            limit_buffers(transport)
        session, subscription = await self._join(after)
        joined()
        self._watch_expiry()
        self._keepalive = Keepalive(self, self._limits, transport, self._timers)
        self._keepalive.start()
        self.wake()
        try:
            while await self._handle(await self._socket.receive()):
                pass
        finally:
            session.detach(self, subscription)
            self._session = None  # no writer begins any more: nothing would wait for it
            self._keepalive.stop()
            if self._expiry is not None:
                self._expiry.cancel()
            await self._finish_writer()

    async def _join(self, after: EventCursor | None) -> tuple[Session, Subscription]:
        """Attach, and leave the `ready` frame to the writer. Not a part of `serve`: its frame would hold the snapshot,
        with the whole running reply, for as long as the connection lasts."""
        attachment = await self._slots.attach(self._principal.user_id, self, after)
        self._session, self.subscription = attachment.session, attachment.subscription
        self._responses.append(ready_on_attach(attachment, self._principal.user_id, self._limits))
        return attachment.session, attachment.subscription

    def probe(self) -> None:
        self._keepalive.probe()

    def ping(self) -> None:
        if not self.is_writing:  # else the writer does, after what it is sending
            with suppress(ConnectionError):  # the reader learns of it too, and ends the connection
                run_now(self._socket.ping())
                self._keepalive.pinged()

    def close(self, code: CloseCode) -> None:
        """The writer sends the close frame. A writer blocked on a full socket is cancelled; after `close_seconds` the
        transport is aborted."""
        if self.closing is not None:
            return
        super().close(code)
        if code is SLOW_CONSUMER and self._writer is not None and self._is_sending:
            self._writer.cancel()  # not one that has not begun: it would send no close frame
        if self.transport is not None:
            asyncio.get_running_loop().call_later(self._limits.close_seconds, self.transport.abort)

    # -- writing -------------------------------------------------------------------------------------------------

    @property
    def is_writing(self) -> bool:
        return self._writer is not None

    def wake(self) -> None:
        if self._writer is None and self._session is not None and self.subscription is not None:
            self._writer = asyncio.create_task(self._write(self._session, self.subscription))

    async def _write(self, session: Session, subscription: Subscription) -> None:
        """Send what there is to send; if the connection is closing, then the close frame."""
        try:
            await self._send_all(session, subscription)
            if self.closing is not None:
                await close_socket(self._socket, self.closing)
        finally:
            self._writer = None

    async def _send_all(self, session: Session, subscription: Subscription) -> None:
        self._is_sending = True
        try:
            while self.closing is None and await self._send_next(session, subscription):
                pass
            if self.closing is not SLOW_CONSUMER:
                await self._send_responses()  # an error among them may be the reason for the close
        except asyncio.CancelledError:
            if self.closing is None:
                raise
            # `close` cancelled a blocked send: only the close frame is left to send.
        except LogTrimmedError:
            self.closing = self.closing or SLOW_CONSUMER
        except ConnectionError:
            pass  # the reader ends the connection
        finally:
            self._is_sending = False

    async def _send_next(self, session: Session, subscription: Subscription) -> bool:
        """Send what comes first. Returns False if there is nothing to send."""
        if subscription.is_lost:
            self._responses.append(ready_on_new_epoch(session, subscription, self._limits))
        if self._responses:
            await self._send_responses()
        elif self._keepalive.due:
            await self._socket.ping()
            self._keepalive.pinged()
        elif subscription.has_more:
            for entry in subscription.take():
                await self.send(entry)
        else:
            return False
        return True

    async def _send_responses(self) -> None:
        responses, self._responses = self._responses, []
        for response in responses:
            await self._socket.send_frame(response, WSMsgType.TEXT)

    def send(self, entry: Entry) -> Coroutine[Any, Any, None]:
        return self._socket.send_frame(entry.data, WSMsgType.TEXT)

    async def _finish_writer(self) -> None:
        if self.closing is None:
            await cancel_and_wait(self._writer)
        elif self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)

    def _respond(self, frame: bytes) -> None:
        self._responses.append(frame)
        if len(self._responses) > _MAX_UNREAD_RESPONSES:
            self.close(SLOW_CONSUMER)  # the client sends commands without reading the responses
        self.wake()

    # -- reading -------------------------------------------------------------------------------------------------

    async def _handle(self, message: WSMessage) -> bool:
        """Process one message. Returns False if it was the last. Commands that arrive after `close` are ignored."""
        self._keepalive.received = True
        if self.closing is not None and message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            pass
        elif message.type is WSMsgType.TEXT:
            await self._handle_text(message.data)
        elif message.type is WSMsgType.PING:
            await self._socket.pong(message.data)
        elif message.type is WSMsgType.BINARY:
            self._respond(error_frame(PlatformError(ErrorCode.INVALID_REQUEST, "Frames are text, not binary.")))
        elif message.type is not WSMsgType.PONG:
            _log_end(message)
            return False
        return True

    async def _handle_text(self, text: str) -> None:
        frame_id: str | None = None
        self.is_executing = True
        try:
            frame = parse_client_frame(text, self._limits.frame_bytes)
            frame_id = frame.id or (frame.client_message_id if isinstance(frame, MessageFrame) else None)
            await self._execute(frame)
        except PlatformError as error:
            self._respond(error_frame(error, frame_id))
            if error.code is ErrorCode.ACCOUNT_BLOCKED:
                self.close(ACCOUNT_CLOSED)
        except Exception:
            log.exception("websocket.command_failed", user_id=self._principal.user_id)
            self._respond(error_frame(PlatformError(ErrorCode.INTERNAL_ERROR), frame_id))
        finally:
            self.is_executing = False

    async def _execute(self, frame: AnyClientFrame) -> None:
        user_id = self._principal.user_id
        match frame:
            case PingFrame():
                self._respond(pong_frame(frame.id))
            case MessageFrame():
                new = NewTurn.of(user_id, frame.client_message_id, frame.content, frame.on_busy)
                accepted = await self._hub.send(new)
                self._acknowledge(frame.id or frame.client_message_id, accepted.turn, accepted.duplicate)
            case RetryFrame():
                accepted = await self._hub.retry(user_id, str(frame.turn_id))
                self._acknowledge(frame.id, accepted.turn, accepted.duplicate)
            case CancelFrame():
                cancelled = await self._hub.cancel(user_id, str(frame.turn_id) if frame.turn_id else None)
                self._acknowledge(frame.id, cancelled.turn, cancelled.duplicate)
            case AuthFrame():
                await self._authenticate_again(frame)

    def _acknowledge(self, frame_id: str | None, turn: Turn, duplicate: bool) -> None:
        self._respond(
            ack_frame(
                frame_id,
                turn_id=turn.id,
                message_id=turn.user_message.id,
                queue_position=turn.queue_position,
                duplicate=duplicate,
            )
        )
        if duplicate and turn.status.ended:
            self._respond(terminal_frame(turn))

    # -- authentication and expiry -------------------------------------------------------------------------------

    async def _authenticate_again(self, frame: AuthFrame) -> None:
        """Replace the token before it expires. A token of another user closes the connection."""
        try:
            principal = await self._authenticate(frame.token.get_secret_value())
        except PlatformError as error:
            if error.code in (ErrorCode.UNAUTHORIZED, ErrorCode.TOKEN_EXPIRED, ErrorCode.FORBIDDEN):
                self._respond(error_frame(error, frame.id))
                return
            raise
        if principal.user_id != self._principal.user_id:
            self.close(UNAUTHORIZED)
            return
        self._principal = principal
        self.credential = principal.credential
        self._watch_expiry()
        self._respond(ack_frame(frame.id, turn_id=None, message_id=None, queue_position=None, duplicate=False))

    def _watch_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        remaining = (self._principal.expires_at - self._now()).total_seconds()
        expired = partial(self.close, expiry_code(self._principal))
        self._expiry = self._timers.call_later(max(remaining, 0.0), expired)


async def close_socket(socket: web.WebSocketResponse, code: CloseCode) -> None:
    """Send the close frame, unless the socket is closed already."""
    if not socket.closed:
        await socket.close(code=code.code, message=code.reason.encode())


def _log_end(message: WSMessage) -> None:
    if message.type is WSMsgType.ERROR:
        log.info("websocket.broken", error=str(message.data))
