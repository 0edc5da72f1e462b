"""`WS /api/v1/chat/stream`: who may open a socket. Until the user is authenticated it is sent nothing.

A browser reads nothing of a refused handshake. So all that it could be refused for is told on the open socket, by an
`error` frame and a close code; only a bad Authorization header, which no browser sends, is refused by its status.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from aiohttp import WSMessage, WSMsgType, web

from server.auth.authenticator import Authenticator
from server.http.client_address import ClientAddresses
from server.http.frame_gate import FrameGate, GatedHandler
from server.http.origins import Origins
from server.ip_addresses import network_of
from server.ports import Principal
from server.protocol.codes import (
    ACCOUNT_CLOSED,
    PROTOCOL_ERROR,
    TOKEN_EXPIRED,
    TOO_MANY_CONNECTIONS,
    TRY_AGAIN_LATER,
    UNAUTHORIZED,
    CloseCode,
    ErrorCode,
)
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.frames import AuthFrame, error_frame, parse_client_frame
from server.protocol.limits import Limits
from server.sessions.hub import RefusedConnectionError, SessionHub
from server.streaming.connection import WebSocketConnection
from server.streaming.slots import Slots, too_many_connections
from server.streaming.strangers import Strangers
from server.streaming.tcp import UNSENT_BYTES

SUBPROTOCOL: Final = "chat.v1"
BEARER: Final = "bearer."
"""What precedes an access token that a browser offers as a subprotocol, since it can set no header."""

_ANSWERED_FRAME_BYTES = 2 * 1024 * 1024
"""Frames above the protocol's limit but below this are answered with an error; larger ones end the connection, unread.
A client that is still sending then may see a reset (1006) before the close frame with 1009."""

_HEADER_BYTES = 14
"""Of a frame, at most."""


class WebSocketEndpoint:
    """Accepts sockets: authentication by header, ticket, subprotocol or first frame, then a connection."""

    def __init__(
        self,
        hub: SessionHub,
        authenticator: Authenticator,
        origins: Origins,
        limits: Limits,
        *,
        addresses: ClientAddresses | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`addresses`: how the client's address is read from a request; from the connection if it is absent."""
        self._hub = hub
        self._authenticator = authenticator
        self._origins = origins
        self._limits = limits
        self._slots = Slots(hub, limits)
        self._strangers = Strangers(limits)
        self._addresses = addresses or ClientAddresses()
        self._now = now

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one socket to its end. Raises PlatformError where it is refused before the upgrade."""
        offered = _offered(request)
        socket = web.WebSocketResponse(
            timeout=self._limits.goodbye_seconds,
            autoping=False,
            protocols=_chosen(offered),
            compress=False,
            max_msg_size=_ANSWERED_FRAME_BYTES,
            writer_limit=UNSENT_BYTES,
        )
        if not socket.can_prepare(request).ok:
            raise PlatformError(ErrorCode.INVALID_REQUEST, "This path speaks WebSocket.")
        header = request.headers.get("Authorization")
        principal = await self._authenticator.header(header) if header is not None else None
        opening = _Opening(request, socket, self._limits)
        after, refusal = None, None
        try:
            after = self._check(request, offered)
        except PlatformError as error:
            refusal = error, PROTOCOL_ERROR
        else:
            try:
                principal = principal or await self._by_request(request, offered)
            except PlatformError as error:
                refusal = error, _close_code_for(error)
        if principal is None or refusal is not None:
            with self._strangers.counted(network_of(self._addresses.of(request))):
                principal = await self._introduce(opening, refusal)
        if principal is not None:
            await opening.accept(is_known=True)
            await self._serve(opening, principal, after)
        return socket

    async def _introduce(
        self, opening: "_Opening", refusal: tuple[PlatformError, CloseCode] | None
    ) -> Principal | None:
        """Open the socket of a stranger, who says who it is, or is refused."""
        if refusal is None:
            await opening.accept(is_known=False)
            try:
                return await self._authenticator.token(await opening.token())
            except PlatformError as error:
                refusal = error, _close_code_for(error)
        await opening.refuse(*refusal)
        return None

    def _check(self, request: web.Request, offered: list[str]) -> EventCursor | None:
        """The cursor to resume from, of a request that may be one of ours. Raises PlatformError."""
        origin = request.headers.get("Origin")
        if origin is not None and not self._origins.allows(origin, request.host):
            raise self._origins.refusal(origin)
        if offered and SUBPROTOCOL not in offered:
            message = f"Offer {SUBPROTOCOL} as a subprotocol, or none."
            raise PlatformError(ErrorCode.INVALID_REQUEST, message)
        return EventCursor.parse(request.query["after"]) if "after" in request.query else None

    async def _by_request(self, request: web.Request, offered: list[str]) -> Principal | None:
        """Who this is, by what a browser can send with a handshake: None if nothing was. Raises PlatformError."""
        token = next((name.removeprefix(BEARER) for name in offered if name.startswith(BEARER)), None)
        if token is not None:
            return await self._authenticator.token(token)
        ticket = request.query.get("ticket")
        return None if ticket is None else await self._authenticator.ticket(ticket, "chat")

    async def _serve(self, opening: "_Opening", principal: Principal, after: EventCursor | None) -> None:
        connection = WebSocketConnection(
            opening.socket,
            principal,
            hub=self._hub,
            slots=self._slots,
            authenticator=self._authenticator,
            limits=self._limits,
            now=self._now,
        )
        try:
            await connection.serve(after, opening.request.transport, opening.gate.open)
        except RefusedConnectionError as refused:
            error = too_many_connections() if refused.code is TOO_MANY_CONNECTIONS else None
            await opening.refuse(error, refused.code)
        except PlatformError as error:
            await opening.refuse(error, _close_code_for(error))


class _Opening:
    """A socket between its handshake and its connection."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse, limits: Limits) -> None:
        self.request = request
        self.socket = socket
        self.gate = FrameGate(limits.first_frame_bytes + _HEADER_BYTES, is_known=True)
        self._limits = limits

    async def accept(self, *, is_known: bool) -> None:
        """Answer the handshake, unless it was. What comes waits at the gate, but for the first frame of a stranger."""
        if self.socket.prepared:
            return
        if not is_known:
            self.gate = FrameGate(self._limits.first_frame_bytes + _HEADER_BYTES, is_known=False)
        protocol = self.request.protocol
        if isinstance(protocol, GatedHandler):
            protocol.gate = self.gate
        await self.socket.prepare(self.request)

    async def token(self) -> str:
        """The access token in the first frame. Raises PlatformError."""
        try:
            async with asyncio.timeout(self._limits.auth_seconds) as deadline:
                self.gate.on_excess = lambda: deadline.reschedule(0)
                if self.gate.is_exceeded:  # by what came in one piece with the handshake
                    deadline.reschedule(0)
                message = await self._first_message()
        except TimeoutError as cause:
            if self.gate.is_exceeded:
                most = self._limits.first_frame_bytes // 1024
                raise PlatformError(ErrorCode.TOO_LARGE, f"The first frame has at most {most} KiB.") from cause
            raise PlatformError(ErrorCode.UNAUTHORIZED, "No token came in time.") from cause
        is_text = message.type is WSMsgType.TEXT
        frame = parse_client_frame(message.data, self._limits.first_frame_bytes) if is_text else None
        if not isinstance(frame, AuthFrame):
            raise PlatformError(ErrorCode.UNAUTHORIZED, "The first frame must be: auth.")
        return frame.token.get_secret_value()

    async def _first_message(self) -> WSMessage:
        while True:
            message = await self.socket.receive()
            if message.type is WSMsgType.PING:
                await self.socket.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                return message

    async def refuse(self, error: PlatformError | None, code: CloseCode) -> None:
        """Say why, and end the connection: within `refusal_seconds`, whatever the client does."""
        await self.accept(is_known=True)
        with suppress(ConnectionError):
            if error is not None:
                await self.socket.send_frame(error_frame(error), WSMsgType.TEXT)
            await self.socket.send_frame(code.code.to_bytes(2) + code.reason.encode(), WSMsgType.CLOSE)
        self.gate.shut()
        transport = self.request.transport
        if transport is None or transport.is_closing():
            return
        transport.write_eof()
        await asyncio.sleep(self._limits.refusal_seconds)  # cancelled when the client has closed, too
        transport.abort()


def _offered(request: web.Request) -> list[str]:
    """The names in `Sec-WebSocket-Protocol`. Never log them: one may be an access token. Raises PlatformError."""
    header = request.headers.get("Sec-WebSocket-Protocol", "")
    if not header.isascii():  # it could not be answered, and no browser sends it
        raise PlatformError(ErrorCode.INVALID_REQUEST, "Sec-WebSocket-Protocol must be ASCII.")
    return [name.strip() for name in header.split(",") if name.strip()]


def _chosen(offered: list[str]) -> tuple[str, ...]:
    """What the handshake answers: a browser ends a connection that answers none of its names, and reads nothing."""
    return (SUBPROTOCOL,) if SUBPROTOCOL in offered else tuple(offered[:1])


def _close_code_for(error: PlatformError) -> CloseCode:
    match error.code:
        case ErrorCode.UNAUTHORIZED | ErrorCode.INVALID_REQUEST | ErrorCode.TOO_LARGE:
            return UNAUTHORIZED
        case ErrorCode.TOKEN_EXPIRED:
            return TOKEN_EXPIRED
        case ErrorCode.ACCOUNT_BLOCKED:
            return ACCOUNT_CLOSED
        case _:
            return TRY_AGAIN_LATER if error.retryable else PROTOCOL_ERROR
