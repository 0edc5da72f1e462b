"""What a stranger may send on a WebSocket: one small frame. What follows it waits, unread, until its sender has joined.

aiohttp limits frames by one size for a socket's whole life. So bytes are counted where they arrive, before its parser.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from aiohttp import web

_CLOSE = 0x8


class FrameParser(Protocol):
    """aiohttp's parser of frames, as far as a connection uses it."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]: ...

    def feed_eof(self) -> None: ...


class _State(Enum):
    FIRST = "the first message passes, if it is small"
    HELD = "nothing passes, and nothing more is read"
    OPEN = "everything passes"
    SHUT = "everything is discarded"


class FrameGate:
    """Stands before the parser of a socket. At first one message passes, of `most_bytes` with all that precedes it.

    A message passes at once where `is_authenticated`: then everything waits until `open`.
    """

    __slots__ = ("_buffer", "_most_bytes", "_parser", "_state", "_taken", "_transport", "on_excess")

    def __init__(self, most_bytes: int, *, is_authenticated: bool) -> None:
        self._most_bytes = most_bytes
        self._parser: FrameParser | None = None
        self._transport: Any = None
        self._buffer: bytearray | None = bytearray()
        self._taken = 0
        self._state = _State.HELD if is_authenticated else _State.FIRST
        self.on_excess: Callable[[], None] = _nothing
        """Called once, when more comes than may pass."""

    @property
    def is_exceeded(self) -> bool:
        return self._taken > self._most_bytes

    def guard(self, parser: FrameParser, transport: Any) -> None:
        """Take the place of `parser` on a connection over `transport`."""
        self._parser, self._transport = parser, transport

    def feed_eof(self) -> None:
        if self._parser is not None:
            self._parser.feed_eof()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes that arrived. The name is aiohttp's, and so is the answer: not the end, and nothing left over."""
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
        """Let everything pass from now on, beginning with what was held."""
        held, self._buffer, self._state = self._buffer, None, _State.OPEN
        self._read(True)  # first: the parser may stop it again
        if held and self._parser is not None:
            self._parser.feed_data(bytes(held))

    def shut(self) -> None:
        """Discard what was held and what still comes: reading it keeps the connection from ending with a reset."""
        self._buffer, self._state = None, _State.SHUT
        self._read(True)

    def _pass_first(self, buffer: bytearray) -> None:
        """Pass frames on, whole ones only, to the end of the first message."""
        while (found := _frame(buffer)) is not None:
            size, ends_message = found
            if self._taken + size > self._most_bytes:
                self._taken += size
                self.shut()
                self.on_excess()
                return
            if len(buffer) < size:
                return
            frame = bytes(buffer[:size])
            del buffer[:size]
            self._taken += size
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
    """An HTTP connection whose WebSocket has a gate, once one is set."""

    __slots__ = ("gate",)

    gate: FrameGate | None

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        if self.gate is None:
            super().set_parser(parser, data_received_cb)
            return
        self.gate.guard(parser, self.transport)
        super().set_parser(self.gate, data_received_cb)  # type: ignore[arg-type]


def _frame(buffer: bytearray) -> tuple[int, bool] | None:
    """The size of the frame at the beginning, which may not all be there, and whether it ends a message or the
    connection; None while its header is incomplete."""
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


def _nothing() -> None:
    """The callback of a gate that reports nothing."""
