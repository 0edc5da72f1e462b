"""The TCP connection under a socket or stream: small send buffers, and how many bytes the peer has acknowledged.

Events that a slow client has not received yet should wait in the event log, where waiting deltas can still be merged,
not in the kernel, which buffers megabytes of single deltas. At 1 kB a second, a reply of 1,900 characters, streamed in
400 deltas, was complete after 73 s; with small buffers after 24 s.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from contextlib import suppress
from typing import Final

UNSENT_BYTES: Final = 4 * 1024
"""The most that waits unsent in the kernel, and as much again in the transport; then the writer waits."""

_UNKNOWN: Final = (OSError, ValueError, AttributeError, struct.error)
"""What a socket option raises on a closed connection, or where the system does not support it."""

_BYTES_ACKED: Final = 120
"""The offset of `tcpi_bytes_acked` in Linux' `struct tcp_info`."""


def limit_buffers(transport: asyncio.Transport) -> None:
    """Reduce the send buffers to UNSENT_BYTES each."""
    transport.set_write_buffer_limits(high=UNSENT_BYTES)
    with suppress(*_UNKNOWN):
        _socket(transport).setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def acknowledged_bytes(transport: asyncio.Transport | None) -> int | None:
    """How many bytes the peer has acknowledged; None if the system does not report it."""
    if transport is None:
        return None
    try:
        info = _socket(transport).getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
        return int(struct.unpack_from("=Q", info, _BYTES_ACKED)[0])
    except _UNKNOWN:
        return None


def written_bytes(transport: asyncio.Transport | None) -> int | None:
    """How many bytes were written, acknowledged or not: `acknowledged_bytes` reaches it when all are."""
    acknowledged, waiting = acknowledged_bytes(transport), _waiting_bytes(transport)
    return None if acknowledged is None or waiting is None else acknowledged + waiting


def is_drained(transport: asyncio.Transport | None) -> bool:
    """Whether the peer has acknowledged all that was written; False if the system does not report it."""
    return _waiting_bytes(transport) == 0


def _waiting_bytes(transport: asyncio.Transport | None) -> int | None:
    """How many bytes wait here or in the kernel, or are on their way; None if the system does not report it."""
    if transport is None:
        return None
    try:
        queued = fcntl.ioctl(_socket(transport).fileno(), termios.TIOCOUTQ, b"\0" * 4)
    except _UNKNOWN:
        return None
    return int(struct.unpack("=i", queued)[0]) + transport.get_write_buffer_size()


def _socket(transport: asyncio.Transport) -> socket.socket:
    found: socket.socket = transport.get_extra_info("socket")
    return found
