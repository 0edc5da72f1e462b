"""The sessions that an instance has open: each is loaded once, and all are released when the instance ends."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import structlog

from server.aio import SingleFlight, StoppedError, cancel_and_wait
from server.ports import ControlMessage, SessionStore
from server.protocol.codes import SERVICE_RESTART, ErrorCode
from server.protocol.errors import PlatformError
from server.sessions.events.logs import Logs
from server.sessions.session import Session

log = structlog.get_logger(__name__)

_RELEASE_SECONDS: Final = 3.0
"""How long an instance that ends tries to release a lease, which runs out by itself."""
_OPENING_SECONDS: Final = 2.0
"""How long an instance that ends waits for sessions that are just being opened."""


class OpenSessions:
    """`by_user` has those that are loaded, `opening` those being loaded. `make` creates one that is not loaded yet."""

    def __init__(self, make: Callable[[str], Session], store: SessionStore, logs: Logs) -> None:
        self._make = make
        self._store = store
        self._logs = logs
        self.by_user: dict[str, Session] = {}
        self.opening: SingleFlight[str, Session] = SingleFlight("open session", ignored=(PlatformError,))

    async def get(self, user_id: str) -> Session:
        """The user's session, loaded once for all callers that wait for it.

        Raises PlatformError; `draining` if the instance ends before it is loaded."""
        if (session := self.by_user.get(user_id)) is not None:
            session.used()
            return session
        try:
            return await self.opening.run(user_id, partial(self._open, user_id))
        except StoppedError as cause:
            raise PlatformError(ErrorCode.DRAINING, retry_after=1.0) from cause

    async def _open(self, user_id: str) -> Session:
        session = self._make(user_id)
        try:
            await session.load()
        except BaseException:
            session.replication.close()
            raise
        self.by_user[user_id] = session
        return session

    async def recover(self, user_id: str) -> None:
        """Have the user's session claim its open turns. After a failure the next scan finds it again."""
        try:
            (await self.get(user_id)).mark_outdated()
        except PlatformError as error:
            log.warning("session.not_opened", user_id=user_id, code=error.code)

    def forget(self, user_id: str, session: object) -> None:
        """Drop this session, unless the user has another one by now."""
        if self.by_user.get(user_id) is session:
            del self.by_user[user_id]

    async def finish(self, seconds: float) -> None:
        """Let running turns finish for up to `seconds`, and close the connections of each session that is quiet."""
        leaving = [asyncio.create_task(_see_off(session)) for session in tuple(self.by_user.values())]
        if leaving:
            _, late = await asyncio.wait(leaving, timeout=seconds)
            await cancel_and_wait(*late)

    async def hand_over(self) -> None:
        """Release every session to other instances, and close its connections."""
        await asyncio.gather(*(self._hand_over(session) for session in tuple(self.by_user.values())))

    async def _hand_over(self, session: Session) -> None:
        """Release the session now, not when its lease runs out."""
        held = await session.aclose()
        if held is not None:
            with suppress(PlatformError, TimeoutError):
                async with asyncio.timeout(_RELEASE_SECONDS):
                    await self._store.release(*held)
            self._logs.broadcast(ControlMessage("unowned", session.user_id))
        session.disconnect(SERVICE_RESTART)

    async def aclose(self) -> None:
        """Release every session, those included that are just being opened; open turns are recovered elsewhere."""
        await self.opening.aclose(_OPENING_SECONDS)  # a lease that one of those cut off has claimed runs out
        sessions = tuple(self.by_user.values())
        self.by_user.clear()
        await asyncio.gather(*(self._hand_over(session) for session in sessions))


async def _see_off(session: Session) -> None:
    """Close the connections once the session has nothing to do."""
    session.settle()
    await session.quiet()
    session.disconnect(SERVICE_RESTART)
