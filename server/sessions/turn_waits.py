"""Requests that wait until a turn has ended."""

import asyncio
from collections.abc import Awaitable, Callable

from server.ports import SessionStore
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Turn
from server.sessions.session import Session


class TurnWaits:
    """`session` opens a user's session; `clock` in seconds. After `end` nothing waits any more."""

    def __init__(
        self, store: SessionStore, session: Callable[[str], Awaitable[Session]], clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._session = session
        self._clock = clock
        self._waits: set[asyncio.Timeout] = set()
        self._is_over = False

    async def wait(self, user_id: str, turn_id: str, timeout: float) -> Turn | None:
        """The ended turn, or None if it is still open after `timeout` seconds, or at `end`.

        Raises PlatformError(not_found).
        """
        until = self._clock() + timeout
        while True:
            events = (await self._session(user_id)).log  # the session may be another one by now
            ending = events.ending(turn_id)  # before the row is read, so that no end falls between
            turn = await self._store.turn(user_id, turn_id)
            if turn is None or turn.status.ended:
                events.settle_ending(turn_id)
            if turn is None:
                raise PlatformError(ErrorCode.NOT_FOUND)
            if turn.status.ended:
                return turn
            if self._is_over:
                return None
            wait = asyncio.timeout(until - self._clock())
            try:
                async with wait:
                    self._waits.add(wait)
                    await asyncio.shield(ending)
            except TimeoutError:
                return None
            finally:
                self._waits.discard(wait)

    def end(self) -> None:
        """Answer the requests that still wait before the process ends."""
        self._is_over = True
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            if not wait.expired():  # one that expires at this moment cannot be rescheduled any more
                wait.reschedule(now)
