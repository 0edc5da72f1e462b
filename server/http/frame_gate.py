"""Limits an unauthenticated WebSocket to one small message; later bytes are not read until the client is attached.

aiohttp has one limit of the frame size for the whole life of a socket. So bytes are counted before its parser.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from aiohttp import web

_CLOSE = 0x8


class FrameParser(Protocol):
    """The part of aiohttp's frame parser that a connection uses."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]: ...

    def feed_eof(self) -> None: ...


class _State(Enum):
    FIRST = "the first message passes, if it is small"
    HELD = "nothing passes, and nothing more is read"
    OPEN = "everything passes"
    DISCARDING = "everything is discarded"


class FrameGate:
    """Filters the bytes before a socket's parser.

    For an unauthenticated client, the first message passes if it and the frames before it have at most `max_bytes`.
    Everything else, and all of an authenticated client, waits until `open`.
    """

    __slots__ = ("_buffer", "_max_bytes", "_parser", "_passed_bytes", "_state", "_transport", "on_excess")

    def __init__(self, max_bytes: int, *, is_authenticated: bool) -> None:
        self._max_bytes = max_bytes
        self._parser: FrameParser | None = None
        self._transport: Any = None
        self._buffer: bytearray | None = bytearray()
        self._passed_bytes = 0
        self._state = _State.HELD if is_authenticated else _State.FIRST
        self.on_excess: Callable[[], None] = _ignore_excess
        """Called once, when the first message is too large."""

    @property
    def is_exceeded(self) -> bool:
        return self._passed_bytes > self._max_bytes

    def wrap(self, parser: FrameParser, transport: Any) -> None:
        """Pass bytes on to `parser`, and pause and resume `transport`."""
        self._parser, self._transport = parser, transport

    def feed_eof(self) -> None:
        if self._parser is not None:
            self._parser.feed_eof()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Receive bytes. Name and result are those of aiohttp's parser: whether it has ended, and unused bytes."""
        if self._state is _State.OPEN and self._parser is not None:
            return self._parser.feed_data(data)
        if self._buffer is not None:
            self._buffer += data
            if self._state is _State.FIRST:
                self._pass_first(self._buffer)
            if self._state is _State.HELD:
                self._read(False)
        return False, b""

    def open(self) -> None:
        """Pass everything from now on, first the held bytes."""
        held, self._buffer, self._state = self._buffer, None, _State.OPEN
        self._read(True)  # before the parser is fed: it may pause reading again
        if held and self._parser is not None:
            self._parser.feed_data(bytes(held))

    def discard(self) -> None:
        """Discard held and later bytes. They are read, because closing a socket with unread bytes sends a reset."""
        self._buffer, self._state = None, _State.DISCARDING
        self._read(True)

    def _pass_first(self, buffer: bytearray) -> None:
        """Pass complete frames up to the end of the first message."""
        while (found := _frame(buffer)) is not None:
            size, ends_message = found
            if self._passed_bytes + size > self._max_bytes:
                self._passed_bytes += size
                self.discard()
                self.on_excess()
                return
            if len(buffer) < size:
                return
            frame = bytes(buffer[:size])
            del buffer[:size]
            self._passed_bytes += size
            if self._parser is not None:
                self._parser.feed_data(frame)
            if ends_message:
                self._state = _State.HELD
                return

    def _read(self, go_on: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if go_on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()


class GatedHandler(web.RequestHandler):
    """An HTTP connection. Bytes of its WebSocket pass `gate`, if one is set."""

    __slots__ = ("gate",)

    gate: FrameGate | None

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        if self.gate is None:
            super().set_parser(parser, data_received_cb)
            return
        self.gate.wrap(parser, self.transport)
        super().set_parser(self.gate, data_received_cb)  # type: ignore[arg-type]


def _frame(buffer: bytearray) -> tuple[int, bool] | None:
    """The size of the first frame, which may be incomplete, and whether it ends a message or the connection; None while
    its header is incomplete."""
    if len(buffer) < 2:
        return None
    length, header = buffer[1] & 0x7F, 2
    extra = {126: 2, 127: 8}.get(length, 0)
    if extra:
        if len(buffer) < header + extra:
            return None
        length = int.from_bytes(buffer[header : header + extra])
        header += extra
    if buffer[1] & 0x80:
        header += 4
    opcode = buffer[0] & 0x0F
    return header + length, opcode == _CLOSE or (opcode < _CLOSE and bool(buffer[0] & 0x80))


def _ignore_excess() -> None:
    """The default of `on_excess`."""
