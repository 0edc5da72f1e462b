"""An authenticated WebSocket: one reader and one writer around the user's session."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog
from aiohttp import WSMessage, WSMsgType, web

from server.aio import cancel_and_wait
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
from server.sessions.events.log import LogTrimmedError, Subscription
from server.sessions.hub import Attachment, SessionHub
from server.streaming.keepalive import Keepalive
from server.streaming.slots import Slots
from server.streaming.subscriber import Subscriber, expiry_code, ready_on_attach, ready_on_new_epoch
from server.streaming.tcp import limit_buffers

log = structlog.get_logger(__name__)

_MAX_UNREAD_RESPONSES = 256


class WebSocketConnection(Subscriber):
    """An authenticated socket. `serve` returns when the connection has ended, by either side."""

    kind = "websocket"

    __slots__ = (
        "_authenticate",
        "_expiry",
        "_hub",
        "_keepalive",
        "_limits",
        "_now",
        "_principal",
        "_responses",
        "_slots",
        "_socket",
        "_transport",
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
    ) -> None:
        """`authenticate` checks a new token from this client. Raises PlatformError."""
        super().__init__()
        self._socket = socket
        self._hub = hub
        self._slots = slots
        self._authenticate = authenticate
        self._limits = limits
        self._now = now
        self._principal = principal
        self.credential = principal.credential
        self.opened_at = now()
        self._responses: list[bytes] = []
        self.is_executing = False
        self._expiry: asyncio.TimerHandle | None = None
        self._keepalive: Keepalive
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.Task[None] | None = None

    async def serve(
        self, after: EventCursor | None, transport: asyncio.Transport | None, joined: Callable[[], None]
    ) -> None:
        """Attach to the session, call `joined`, and carry frames both ways until the connection ends.

        Raises RefusedConnectionError or PlatformError if it cannot attach.
        """
        self._transport = transport
        if transport is not None:
            limit_buffers(transport)
        attachment = await self._join(after)
        joined()
        session, subscription = attachment.session, attachment.subscription
        self._watch_expiry()
        self._keepalive = Keepalive(self, self._limits, transport)
        self._keepalive.start()
        self._writer = asyncio.create_task(self._write(attachment))
        try:
            while await self._handle(await self._socket.receive()):
                pass
        finally:
            session.detach(self, subscription)
            self._keepalive.stop()
            if self._expiry is not None:
                self._expiry.cancel()
            await self._finish_writer(self._writer)

    async def _join(self, after: EventCursor | None) -> Attachment:
        attachment = await self._slots.attach(self._principal.user_id, self, after)
        self.subscription = attachment.subscription
        self._responses.append(ready_on_attach(attachment, self._principal.user_id, self._limits))
        return attachment

    def probe(self) -> None:
        self._keepalive.probe()

    def close(self, code: CloseCode) -> None:
        """The writer sends the close frame. A writer blocked on a full socket is cancelled; after `close_seconds` the
        transport is aborted."""
        if self.closing is not None:
            return
        super().close(code)
        if code is SLOW_CONSUMER and self._writer is not None:
            self._writer.cancel()
        if self._transport is not None:
            asyncio.get_running_loop().call_later(self._limits.close_seconds, self._transport.abort)

    # -- writing -------------------------------------------------------------------------------------------------

    async def _write(self, attachment: Attachment) -> None:
        try:
            await self._pump(attachment)
            if self.closing is not SLOW_CONSUMER:
                await self._send_responses()  # an error among them may be the reason for the close
        except asyncio.CancelledError:
            if self.closing is None:
                raise
            # `close` cancelled a blocked send: only the close frame is left to send.
        except LogTrimmedError:
            self.closing = self.closing or SLOW_CONSUMER
        except ConnectionError:
            return
        if self.closing is not None:
            await close_socket(self._socket, self.closing)

    async def _pump(self, attachment: Attachment) -> None:
        """Send what is queued, then wait. No local variable keeps what was sent: most sockets wait most of the time,
        and would hold that memory."""
        subscription, keepalive = attachment.subscription, self._keepalive
        while self.closing is None:
            if subscription.is_lost:
                self._responses.append(ready_on_new_epoch(attachment, self._principal.user_id, self._limits))
            if self._responses:
                await self._send_responses()
            if keepalive.due:
                await self._socket.ping()
                keepalive.pinged()
            if subscription.has_more and not subscription.is_lost:
                await self._send_events(subscription)
            if not (self._responses or keepalive.due or subscription.has_more) and self.closing is None:
                await self.next_wake()

    async def _send_responses(self) -> None:
        responses, self._responses = self._responses, []
        for response in responses:
            await self._socket.send_frame(response, WSMsgType.TEXT)

    async def _send_events(self, subscription: Subscription) -> None:
        send = self._socket.send_frame
        for frame in subscription.take():
            await send(frame.data, WSMsgType.TEXT)

    async def _finish_writer(self, writer: "asyncio.Task[None]") -> None:
        if self.closing is None:
            await cancel_and_wait(writer)
        else:
            await asyncio.gather(writer, return_exceptions=True)

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
        code = expiry_code(self._principal)
        self._expiry = asyncio.get_running_loop().call_later(max(remaining, 0.0), self.close, code)


async def close_socket(socket: web.WebSocketResponse, code: CloseCode) -> None:
    """Send the close frame, unless the socket is closed already."""
    if not socket.closed:
        await socket.close(code=code.code, message=code.reason.encode())


def _log_end(message: WSMessage) -> None:
    if message.type is WSMsgType.ERROR:
        log.info("websocket.broken", error=str(message.data))
