"""Pings, and what their silence means: a client that is gone, or a line so slow that the ping is still on its way."""

import asyncio
from typing import Protocol

from server.protocol.codes import NO_PONG, CloseCode
from server.protocol.limits import Limits
from server.streaming.tcp import arrived, written


class Pinged(Protocol):
    """The connection that is kept."""

    @property
    def is_obeying(self) -> bool:
        """Whether a command is carried out: nothing is read meanwhile, pongs neither."""

    def wake(self) -> None:
        """The writer is to send a ping."""

    def close(self, code: CloseCode) -> None: ...


class Keepalive:
    """Runs from `start` to `stop`. The writer pings when `due` and then says `pinged`; the reader says what it hears.

    A line is dead when it does not take the ping, or takes it and brings no answer; one on which what was written
    before the ping goes on arriving is only slow, and is given more time. Without that, a client that reads 500 to
    1,000 bytes a second was closed in the middle of a reply of 2 kB, which is whole after 35 to 18 s with it.
    """

    __slots__ = (
        "_arrived",
        "_connection",
        "_hurried",
        "_limits",
        "_ping_end",
        "_timer",
        "_transport",
        "_underway",
        "due",
        "heard",
    )

    def __init__(self, connection: Pinged, limits: Limits, transport: asyncio.Transport | None) -> None:
        self._connection = connection
        self._limits = limits
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self._ping_end: int | None = None  # in bytes written; None until the ping is
        self._arrived: int | None = None
        self._underway = False
        self._hurried = False
        self.due = False
        self.heard = True

    def start(self) -> None:
        self._hurried = False
        self._timer = asyncio.get_running_loop().call_later(self._limits.ping_seconds, self._ping)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def hurry(self) -> None:
        """Find out now whether the client is there: whoever is not is gone `proof_seconds` from now."""
        if self._hurried:
            return
        self.stop()
        self._hurried = True
        if self.heard:
            self._ping()
        else:
            self._expect_pong_later()

    def pinged(self) -> None:
        self.due, self._ping_end = False, written(self._transport)

    def _ping(self) -> None:
        self.heard, self.due, self._underway = False, True, False
        self._ping_end, self._arrived = None, arrived(self._transport)
        self._connection.wake()
        self._expect_pong_later()

    def _expect_pong_later(self) -> None:
        seconds = self._limits.proof_seconds if self._hurried else self._limits.pong_seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expect_pong)

    def _expect_pong(self) -> None:
        if self.heard or self._connection.is_obeying:
            self.start()
        elif self._is_underway():
            self._expect_pong_later()
        else:
            self._connection.close(NO_PONG)

    def _is_underway(self) -> bool:
        """Whether something arrived since the last look, and the ping had not arrived by then."""
        before, self._arrived = self._arrived, arrived(self._transport)
        if before is None or self._arrived is None:
            return False
        was_underway, self._underway = self._underway, self._ping_end is None or self._arrived < self._ping_end
        return self._arrived > before and (self._underway or was_underway)
