"""`WS /api/v1/chat/stream`: opening and authenticating a socket. Until the user is authenticated, nothing is sent.

A browser cannot read the response of a refused handshake. So a refusal is sent on the open socket, as an `error` frame
and a close code; only clients that send an Authorization header, which browsers cannot, are refused by HTTP status.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from aiohttp import WSMessage, WSMsgType, web

from server.auth.authenticator import Authenticator
from server.http.client_address import ClientAddresses
from server.http.frame_gate import FrameGate, GatedHandler
from server.http.origins import Origins
from server.http.rate_limits import count_request
from server.ip_addresses import network_of
from server.ports import Access, Principal
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
from server.resilience.rate_limiter import RateLimiter
from server.sessions.hub import RefusedConnectionError, SessionHub
from server.streaming.connection import WebSocketConnection
from server.streaming.slots import Slots, too_many_connections
from server.streaming.tcp import UNSENT_BYTES
from server.streaming.timers import Timers
from server.streaming.unauthenticated import UnauthenticatedSockets

SUBPROTOCOL: Final = "chat.v1"
BEARER: Final = "bearer."
"""The prefix of an access token that a browser offers as a subprotocol, since it cannot set a header."""

_ANSWERED_FRAME_BYTES = 2 * 1024 * 1024
"""Frames above the protocol's limit but below this get an `error` frame; larger ones end the connection unread, with
close code 1009. A client that is still sending may see a reset (1006) instead."""

_HEADER_BYTES = 14
"""The longest header of a frame (RFC 6455, section 5.2)."""


class WebSocketEndpoint:
    """Accepts sockets: authenticates by header, ticket, subprotocol or first frame, then serves a connection."""

    def __init__(
        self,
        hub: SessionHub,
        authenticator: Authenticator,
        origins: Origins,
        limits: Limits,
        *,
        limiter: RateLimiter | None = None,
        addresses: ClientAddresses | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`addresses` reads the client's address from a request; without it, the connection's address is used."""
        self._hub = hub
        self._authenticator = authenticator
        self._origins = origins
        self._limits = limits
        self._slots = Slots(hub, limits)
        self._unauthenticated = UnauthenticatedSockets(limits)
        self._limiter = limiter or RateLimiter({})
        self._addresses = addresses or ClientAddresses()
        self._now = now
        self._timers = Timers()

    async def handle(self, request: web.Request, access: Access) -> web.WebSocketResponse:
        """Serve one socket to its end, for a user with this access. Raises PlatformError if it is refused before the
        upgrade."""
        offered = _offered(request)
        socket = web.WebSocketResponse(
            timeout=self._limits.close_seconds,
            autoping=False,
            protocols=_chosen(offered),
            compress=False,
            max_msg_size=_ANSWERED_FRAME_BYTES,
            writer_limit=UNSENT_BYTES,
        )
        if not socket.can_prepare(request).ok:
            raise PlatformError(ErrorCode.INVALID_REQUEST, "This path speaks WebSocket.")
        opening = _Opening(request, socket, self._limits, network_of(self._addresses.of(request)))
        header, principal = request.headers.get("Authorization"), None
        if header is not None:
            principal = await self._counted(self._authenticator.header(header, access, opening.network))
        after, refusal = None, None
        try:
            after = self._parse_request(request, offered)
        except PlatformError as error:
            refusal = error, PROTOCOL_ERROR
        else:
            try:
                principal = principal or await self._authenticate_request(opening, offered, access)
            except PlatformError as error:
                refusal = error, _close_code_for(error)
        if principal is None or refusal is not None:
            with self._unauthenticated.counted(opening.network):
                principal = await self._authenticate_first_frame(opening, refusal, access)
        if principal is not None:
            await opening.accept(is_authenticated=True)
            await self._serve(opening, principal, access, after)
        return socket

    async def _authenticate_first_frame(
        self, opening: "_Opening", refusal: tuple[PlatformError, CloseCode] | None, access: Access
    ) -> Principal | None:
        """Open an unauthenticated socket and authenticate it by its first frame, or refuse it."""
        if refusal is None:
            await opening.accept(is_authenticated=False)
            try:
                token = await opening.token()
                return await self._counted(self._authenticator.token(token, access, opening.network))
            except PlatformError as error:
                refusal = error, _close_code_for(error)
        await opening.refuse(*refusal)
        return None

    def _parse_request(self, request: web.Request, offered: list[str]) -> EventCursor | None:
        """Check origin and subprotocol, and parse the cursor to resume from. Raises PlatformError."""
        origin = request.headers.get("Origin")
        if origin is not None and not self._origins.allows(origin):
            raise self._origins.refusal(origin)
        if offered and SUBPROTOCOL not in offered:
            message = f"Offer {SUBPROTOCOL} as a subprotocol, or none."
            raise PlatformError(ErrorCode.INVALID_REQUEST, message)
        return EventCursor.parse(request.query["after"]) if "after" in request.query else None

    async def _authenticate_request(self, opening: "_Opening", offered: list[str], access: Access) -> Principal | None:
        """Authenticate by what a browser can send with a handshake: a subprotocol or a ticket. None if it sent neither.

        Raises PlatformError.
        """
        token = next((name.removeprefix(BEARER) for name in offered if name.startswith(BEARER)), None)
        if token is not None:
            return await self._counted(self._authenticator.token(token, access, opening.network))
        ticket = opening.request.query.get("ticket")
        return None if ticket is None else await self._counted(self._authenticator.ticket(ticket, "chat", access))

    async def _counted(self, authentication: Awaitable[Principal]) -> Principal:
        """Authenticate, and count the socket as a request of its user. Raises PlatformError."""
        principal = await authentication
        await count_request(self._limiter, principal)
        return principal

    async def _serve(
        self, opening: "_Opening", principal: Principal, access: Access, after: EventCursor | None
    ) -> None:
        connection = WebSocketConnection(
            opening.socket,
            principal,
            hub=self._hub,
            slots=self._slots,
            authenticate=lambda token: self._authenticator.token(token, access, opening.network),
            limits=self._limits,
            now=self._now,
            timers=self._timers,
        )
        try:
            await connection.serve(after, opening.request.transport, opening.gate.open)
        except RefusedConnectionError as refused:
            error = too_many_connections() if refused.code is TOO_MANY_CONNECTIONS else None
            await opening.refuse(error, refused.code)
        except PlatformError as error:
            await opening.refuse(error, _close_code_for(error))


class _Opening:
    """A socket from its handshake until it is attached or refused. `network` is the client's."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse, limits: Limits, network: str) -> None:
        self.request = request
        self.socket = socket
        self.network = network
        self.gate = FrameGate(limits.first_frame_bytes + _HEADER_BYTES, is_authenticated=True)
        self._limits = limits

    async def accept(self, *, is_authenticated: bool) -> None:
        """Complete the handshake, unless that is done. Frames wait at the gate, except the first one of an
        unauthenticated client."""
        if self.socket.prepared:
            return
        if not is_authenticated:
            self.gate = FrameGate(self._limits.first_frame_bytes + _HEADER_BYTES, is_authenticated=False)
        protocol = self.request.protocol
        if isinstance(protocol, GatedHandler):
            protocol.gate = self.gate
        await self.socket.prepare(self.request)

    async def token(self) -> str:
        """The access token in the first frame. Raises PlatformError."""
        try:
            async with asyncio.timeout(self._limits.auth_seconds) as deadline:
                self.gate.on_excess = lambda: deadline.reschedule(0)
                if self.gate.is_exceeded:  # by bytes that arrived together with the handshake
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
        """Send the error, close, and abort the transport after `refusal_seconds` if the client has not closed it."""
        await self.accept(is_authenticated=True)
        with suppress(ConnectionError):
            if error is not None:
                await self.socket.send_frame(error_frame(error), WSMsgType.TEXT)
            await self.socket.send_frame(code.code.to_bytes(2) + code.reason.encode(), WSMsgType.CLOSE)
        self.gate.discard()
        transport = self.request.transport
        if transport is None or transport.is_closing():
            return
        transport.write_eof()
        await asyncio.sleep(self._limits.refusal_seconds)  # cancelled when the client has closed, too
        transport.abort()


def _offered(request: web.Request) -> list[str]:
    """The names in `Sec-WebSocket-Protocol`. Never log them: one may be an access token. Raises PlatformError."""
    header = request.headers.get("Sec-WebSocket-Protocol", "")
    if not header.isascii():  # the handshake's response could not repeat it; no browser sends it
        raise PlatformError(ErrorCode.INVALID_REQUEST, "Sec-WebSocket-Protocol must be ASCII.")
    return [name.strip() for name in header.split(",") if name.strip()]


def _chosen(offered: list[str]) -> tuple[str, ...]:
    """The subprotocol to select. A browser fails a connection that selects none of the names it offered."""
    return (SUBPROTOCOL,) if SUBPROTOCOL in offered else tuple(offered[:1])


def _close_code_for(error: PlatformError) -> CloseCode:
    match error.code:
        case ErrorCode.UNAUTHORIZED | ErrorCode.FORBIDDEN | ErrorCode.INVALID_REQUEST | ErrorCode.TOO_LARGE:
            return UNAUTHORIZED
        case ErrorCode.MFA_REQUIRED | ErrorCode.REGISTRATION_CLOSED | ErrorCode.ANONYMOUS_NOT_ALLOWED:
            return UNAUTHORIZED
        case ErrorCode.TOKEN_EXPIRED:
            return TOKEN_EXPIRED
        case ErrorCode.ACCOUNT_BLOCKED:
            return ACCOUNT_CLOSED
        case _:
            return TRY_AGAIN_LATER if error.retryable else PROTOCOL_ERROR
