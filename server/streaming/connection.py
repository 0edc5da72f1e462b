"""An authenticated WebSocket: one reader and one writer around the user's session."""

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog
from aiohttp import WSMessage, WSMsgType, web

from server.aio import cancel_and_wait
from server.auth.authenticator import Authenticator
from server.ports import NewTurn, Principal
from server.protocol.codes import (
    ACCOUNT_CLOSED,
    SLOW_CONSUMER,
    TOKEN_EXPIRED,
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
from server.streaming.subscriber import Subscriber, greeting, new_beginning
from server.streaming.tcp import keep_short

log = structlog.get_logger(__name__)

_UNREAD_ANSWERS = 256


class WebSocketConnection(Subscriber):
    """An authenticated socket. `serve` returns when it is over, whichever side ended it."""

    __slots__ = (
        "_answers",
        "_authenticator",
        "_expiry",
        "_hub",
        "_keepalive",
        "_limits",
        "_now",
        "_principal",
        "_slots",
        "_socket",
        "_transport",
        "_writer",
        "is_obeying",
    )

    def __init__(
        self,
        socket: web.WebSocketResponse,
        principal: Principal,
        *,
        hub: SessionHub,
        slots: Slots,
        authenticator: Authenticator,
        limits: Limits,
        now: Callable[[], datetime],
    ) -> None:
        super().__init__()
        self._socket = socket
        self._hub = hub
        self._slots = slots
        self._authenticator = authenticator
        self._limits = limits
        self._now = now
        self._principal = principal
        self._answers: list[bytes] = []
        self.is_obeying = False
        self._expiry: asyncio.TimerHandle | None = None
        self._keepalive: Keepalive
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.Task[None] | None = None

    async def serve(
        self, after: EventCursor | None, transport: asyncio.Transport | None, joined: Callable[[], None]
    ) -> None:
        """Join the session, say so by `joined`, and carry frames both ways.

        Raises RefusedConnectionError, PlatformError if it cannot join.
        """
        self._transport = transport
        if transport is not None:
            keep_short(transport)
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
        self._answers.append(greeting(attachment, self._principal.user_id, self._limits))
        return attachment

    def prove_yourself(self) -> None:
        self._keepalive.hurry()

    def close(self, code: CloseCode) -> None:
        """The goodbye is the writer's; a writer that is stuck on a full socket is interrupted, then cut off."""
        if self.closing is not None:
            return
        super().close(code)
        if code is SLOW_CONSUMER and self._writer is not None:
            self._writer.cancel()
        if self._transport is not None:
            asyncio.get_running_loop().call_later(self._limits.goodbye_seconds, self._transport.abort)

    # -- writing -------------------------------------------------------------------------------------------------

    async def _write(self, attachment: Attachment) -> None:
        try:
            await self._pump(attachment)
            if self.closing is not SLOW_CONSUMER:
                await self._send_answers()  # why it ends, above all
        except asyncio.CancelledError:
            if self.closing is None:
                raise
            # `close` interrupted a send that was stuck: what is left is to say goodbye.
        except LogTrimmedError:
            self.closing = self.closing or SLOW_CONSUMER
        except ConnectionError:
            return
        if self.closing is not None:
            await close_socket(self._socket, self.closing)

    async def _pump(self, attachment: Attachment) -> None:
        """Send what there is, then wait. No variable here holds what was sent: most sockets wait most of the time."""
        subscription, keepalive = attachment.subscription, self._keepalive
        while self.closing is None:
            if subscription.is_lost:
                self._answers.append(new_beginning(attachment, self._principal.user_id, self._limits))
            if self._answers:
                await self._send_answers()
            if keepalive.due:
                await self._socket.ping()
                keepalive.pinged()
            if subscription.has_more and not subscription.is_lost:
                await self._send_events(subscription)
            if not (self._answers or keepalive.due or subscription.has_more) and self.closing is None:
                await self.woken()

    async def _send_answers(self) -> None:
        answers, self._answers = self._answers, []
        for answer in answers:
            await self._socket.send_frame(answer, WSMsgType.TEXT)

    async def _send_events(self, subscription: Subscription) -> None:
        send = self._socket.send_frame
        for frame in subscription.take():
            await send(frame.data, WSMsgType.TEXT)

    async def _finish_writer(self, writer: "asyncio.Task[None]") -> None:
        if self.closing is None:
            await cancel_and_wait(writer)
        else:
            await asyncio.gather(writer, return_exceptions=True)

    def _answer(self, frame: bytes) -> None:
        self._answers.append(frame)
        if len(self._answers) > _UNREAD_ANSWERS:
            self.close(SLOW_CONSUMER)  # it asks and asks and does not read the answers
        self.wake()

    # -- reading -------------------------------------------------------------------------------------------------

    async def _handle(self, message: WSMessage) -> bool:
        """Take one message; False when it was the last. After the order to close nothing is obeyed any more."""
        self._keepalive.heard = True
        if self.closing is not None and message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            pass
        elif message.type is WSMsgType.TEXT:
            await self._take(message.data)
        elif message.type is WSMsgType.PING:
            await self._socket.pong(message.data)
        elif message.type is WSMsgType.BINARY:
            self._answer(error_frame(PlatformError(ErrorCode.INVALID_REQUEST, "Frames are text, not binary.")))
        elif message.type is not WSMsgType.PONG:
            _log_end(message)
            return False
        return True

    async def _take(self, text: str) -> None:
        frame_id: str | None = None
        self.is_obeying = True
        try:
            frame = parse_client_frame(text, self._limits.frame_bytes)
            frame_id = frame.id or (frame.client_message_id if isinstance(frame, MessageFrame) else None)
            await self._obey(frame)
        except PlatformError as error:
            self._answer(error_frame(error, frame_id))
            if error.code is ErrorCode.ACCOUNT_BLOCKED:
                self.close(ACCOUNT_CLOSED)
        except Exception:
            log.exception("websocket.command_failed", user_id=self._principal.user_id)
            self._answer(error_frame(PlatformError(ErrorCode.INTERNAL_ERROR), frame_id))
        finally:
            self.is_obeying = False

    async def _obey(self, frame: AnyClientFrame) -> None:
        user_id = self._principal.user_id
        match frame:
            case PingFrame():
                self._answer(pong_frame(frame.id))
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
        self._answer(
            ack_frame(
                frame_id,
                turn_id=turn.id,
                message_id=turn.user_message.id,
                queue_position=turn.queue_position,
                duplicate=duplicate,
            )
        )
        if duplicate and turn.status.ended:
            self._answer(terminal_frame(turn))

    # -- who and how long ----------------------------------------------------------------------------------------

    async def _authenticate_again(self, frame: AuthFrame) -> None:
        """A fresh token before the old one expires. It must be the same user's, or the connection ends."""
        try:
            principal = await self._authenticator.token(frame.token.get_secret_value())
        except PlatformError as error:
            if error.code in (ErrorCode.UNAUTHORIZED, ErrorCode.TOKEN_EXPIRED):
                self._answer(error_frame(error, frame.id))
                return
            raise
        if principal.user_id != self._principal.user_id:
            self.close(UNAUTHORIZED)
            return
        self._principal = principal
        self._watch_expiry()
        self._answer(ack_frame(frame.id, turn_id=None, message_id=None, queue_position=None, duplicate=False))

    def _watch_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        remaining = (self._principal.expires_at - self._now()).total_seconds()
        self._expiry = asyncio.get_running_loop().call_later(max(remaining, 0.0), self.close, TOKEN_EXPIRED)


async def close_socket(socket: web.WebSocketResponse, code: CloseCode) -> None:
    """Say goodbye, unless the socket is closed already."""
    if not socket.closed:
        await socket.close(code=code.code, message=code.reason.encode())


def _log_end(message: WSMessage) -> None:
    if message.type is WSMsgType.ERROR:
        log.info("websocket.broken", error=str(message.data))
