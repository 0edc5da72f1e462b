"""Cursors: a client's position in its event stream (`epoch:seq`), and in its history (opaque).

On an event stream that was opened with a ticket the cursor has a proof (`epoch:seq:proof`) for reconnects.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

_EVENT_CURSOR = re.compile(r"([0-9A-Za-z_-]{1,64}):(0|[1-9][0-9]{0,17})(?::([0-9A-Za-z_-]{1,64}))?", re.ASCII)
_HISTORY_CURSOR = re.compile(r"p([1-9][0-9]{0,17})", re.ASCII)


@dataclass(frozen=True, slots=True)
class EventCursor:
    """The last event a client has seen: `seq` within `epoch`, 0 before the first.

    `proof`: evidence that a ticket's stream had this epoch, see `Tickets.proof`.
    """

    epoch: str
    seq: int
    proof: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "EventCursor":
        """Read `epoch:seq` or `epoch:seq:proof`. Raises PlatformError(invalid_cursor)."""
        found = _EVENT_CURSOR.fullmatch(text)
        if found is None:
            raise PlatformError(ErrorCode.INVALID_CURSOR)
        return cls(found[1], int(found[2]), found[3])


def encode_history_cursor(position: int) -> str:
    """A history position as opaque text, which clients send back."""
    return base64.urlsafe_b64encode(f"p{position}".encode()).rstrip(b"=").decode()


def decode_history_cursor(text: str) -> int:
    """The position in a history cursor. Raises PlatformError(invalid_cursor) for any other text."""
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as cause:
        raise PlatformError(ErrorCode.INVALID_CURSOR) from cause
    found = _HISTORY_CURSOR.fullmatch(plain)
    if found is None or encode_history_cursor(int(found[1])) != text:
        raise PlatformError(ErrorCode.INVALID_CURSOR)
    return int(found[1])
