"""`WS /api/v1/chat/stream`: who may open a socket. It is nobody's, and is sent nothing, until that is known."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from aiohttp import WSMsgType, web

from server.authentication import Authenticator
from server.origins import Origins
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
from server.protocol.frames import (
    AuthFrame,
    error_frame,
    parse_client_frame,
)
from server.protocol.limits import Limits
from server.sessions.hub import RefusedConnectionError, SessionHub
from server.transports.connection import WebSocketConnection, close_socket
from server.transports.line import UNSENT_BYTES
from server.transports.slots import Slots, too_many_connections

_ANSWERED_FRAME_BYTES = 2 * 1024 * 1024
"""Frames above the protocol's limit but below this are answered with an error; larger ones end the connection, unread.
A client that is still sending then may see a reset (1006) before the close frame with 1009."""


class WebSocketEndpoint:
    """Accepts sockets: origin, cursor, authentication, then a connection."""

    def __init__(
        self,
        hub: SessionHub,
        authenticator: Authenticator,
        origins: Origins,
        limits: Limits,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._hub = hub
        self._authenticator = authenticator
        self._origins = origins
        self._limits = limits
        self._slots = Slots(hub, limits)
        self._now = now

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        origin = request.headers.get("Origin")
        if origin is not None and not self._origins.allows(origin, request.host):
            raise PlatformError(ErrorCode.ORIGIN_NOT_ALLOWED)
        after = EventCursor.parse(request.query["after"]) if "after" in request.query else None
        header = request.headers.get("Authorization")
        principal = await self._authenticator.header(header) if header is not None else None
        socket = web.WebSocketResponse(
            timeout=self._limits.goodbye_seconds,
            autoping=False,
            compress=False,
            max_msg_size=_ANSWERED_FRAME_BYTES,
            writer_limit=UNSENT_BYTES,
        )
        if not socket.can_prepare(request).ok:
            raise PlatformError(ErrorCode.INVALID_REQUEST, "This path speaks WebSocket.")
        await socket.prepare(request)
        try:
            if principal is None:
                principal = await self._introduce(socket, request.query.get("ticket"))
            connection = WebSocketConnection(
                socket,
                principal,
                hub=self._hub,
                slots=self._slots,
                authenticator=self._authenticator,
                limits=self._limits,
                now=self._now,
            )
            await connection.serve(after, request.transport)
        except RefusedConnectionError as refused:
            if refused.code is TOO_MANY_CONNECTIONS:
                await _send_quietly(socket, error_frame(too_many_connections()))
            await close_socket(socket, refused.code)
        except PlatformError as error:
            await _send_quietly(socket, error_frame(error))
            await close_socket(socket, _close_code_for(error))
        return socket

    async def _introduce(self, socket: web.WebSocketResponse, ticket: str | None) -> Principal:
        """Who this is, by ticket or by the first frame. Raises PlatformError."""
        if ticket is not None:
            return await self._authenticator.ticket(ticket, "chat")
        try:
            async with asyncio.timeout(self._limits.auth_seconds):
                message = await socket.receive()
        except TimeoutError as cause:
            raise PlatformError(ErrorCode.UNAUTHORIZED, "No token came in time.") from cause
        frame = parse_client_frame(message.data, self._limits.frame_bytes) if message.type is WSMsgType.TEXT else None
        if not isinstance(frame, AuthFrame):
            raise PlatformError(ErrorCode.UNAUTHORIZED, "The first frame must be: auth.")
        return await self._authenticator.token(frame.token.get_secret_value())


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


async def _send_quietly(socket: web.WebSocketResponse, frame: bytes) -> None:
    with suppress(ConnectionError):
        await socket.send_frame(frame, WSMsgType.TEXT)
