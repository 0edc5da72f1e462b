"""WebSocket pings. A missing pong means a dead connection, or one so slow that the ping has not arrived yet."""

import asyncio
from typing import Protocol

from server.protocol.codes import NO_PONG, CloseCode
from server.protocol.limits import Limits
from server.streaming.tcp import acknowledged_bytes, is_drained, written_bytes
from server.streaming.timers import Timer, Timers


class PingedConnection(Protocol):
    """The connection whose keep-alive this is."""

    @property
    def is_executing(self) -> bool:
        """Whether a command is being executed: meanwhile nothing is read, not even a pong."""

    @property
    def is_writing(self) -> bool:
        """Whether the writer is sending."""

    def ping(self) -> None:
        """Send a ping at once and call `pinged`, or have the writer do so."""

    def close(self, code: CloseCode) -> None: ...


class Keepalive:
    """Runs from `start` to `stop`. A ping is `due` until it was sent and `pinged` called; the reader sets `received`.

    A connection is dead when the ping is neither acknowledged by TCP nor answered by a pong in time. While bytes
    written before the ping are still being acknowledged, the connection is only slow, and the deadline is extended.
    Without that, a client that reads 500 to 1,000 bytes a second was closed in the middle of a reply of 2 kB, which
    now arrives completely within 35 to 18 s.
    """

    __slots__ = (
        "_acknowledged",
        "_connection",
        "_in_transit",
        "_is_probing",
        "_limits",
        "_ping_end",
        "_timer",
        "_timers",
        "_transport",
        "due",
        "received",
    )

    def __init__(
        self, connection: PingedConnection, limits: Limits, transport: asyncio.Transport | None, timers: Timers
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._transport = transport
        self._timers = timers
        self._timer: Timer | None = None
        self._ping_end: int | None = None  # total bytes written including the ping; None until it is written
        self._acknowledged: int | None = None  # None where nothing but the ping can be in transit
        self._in_transit = False
        self._is_probing = False
        self.due = False
        self.received = True

    def start(self) -> None:
        self._is_probing = False
        self._timer = self._timers.call_later(self._limits.ping_seconds, self._ping)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def probe(self) -> None:
        """Ping now; close the connection if no pong arrives within `probe_seconds`."""
        if self._is_probing:
            return
        self.stop()
        self._is_probing = True
        if self.received:
            self._ping()
        else:
            self._schedule_check()

    def pinged(self) -> None:
        self.due = False
        if self._acknowledged is not None:
            self._ping_end = written_bytes(self._transport)

    def _ping(self) -> None:
        self.received, self.due, self._in_transit = False, True, False
        is_slow = self._connection.is_writing or not is_drained(self._transport)
        self._ping_end, self._acknowledged = None, acknowledged_bytes(self._transport) if is_slow else None
        self._connection.ping()
        self._schedule_check()

    def _schedule_check(self) -> None:
        seconds = self._limits.probe_seconds if self._is_probing else self._limits.pong_seconds
        self._timer = self._timers.call_later(seconds, self._check_pong)

    def _check_pong(self) -> None:
        if self.received or self._connection.is_executing:
            self.start()
        elif self._is_in_transit():
            self._schedule_check()
        else:
            self._connection.close(NO_PONG)

    def _is_in_transit(self) -> bool:
        """Whether bytes were acknowledged since the previous call while the ping itself was not."""
        before, self._acknowledged = self._acknowledged, acknowledged_bytes(self._transport)
        if before is None or self._acknowledged is None:
            return False
        was_in_transit = self._in_transit
        self._in_transit = self._ping_end is None or self._acknowledged < self._ping_end
        return self._acknowledged > before and (self._in_transit or was_in_transit)
