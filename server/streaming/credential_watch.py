"""Closes connections whose sign-in or API key has ended: at once when an instance says so, else within seconds, for
what happened at Supabase itself."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import structlog

from server.aio import StoppedError, TaskSet, every
from server.ports import CredentialStore
from server.protocol.codes import SIGNED_OUT
from server.protocol.errors import PlatformError
from server.sessions.hub import SessionHub
from server.sessions.session import Session
from server.streaming.subscriber import Subscriber

log = structlog.get_logger(__name__)

PERIOD_SECONDS: Final = 10.0


class CredentialWatch:
    """`run` it for as long as there are connections. While the database cannot be asked, nothing is closed."""

    def __init__(self, hub: SessionHub, credentials: CredentialStore, period: float = PERIOD_SECONDS) -> None:
        self._hub = hub
        self._credentials = credentials
        self._period = period
        self._tasks = TaskSet("credential watch")

    async def run(self) -> None:
        """Check the credentials of all connections periodically, in one call, until cancelled."""
        async with self._tasks:
            await every(self._period, self._check_all, name="credentials", expected=(PlatformError,))

    def recheck(self, user_id: str) -> None:
        """Check the user's connections now. Never waits."""
        if (session := self._hub.sessions.get(user_id)) is not None and session.connections:
            with suppress(StoppedError):  # at the end of the process
                self._tasks.create(self._recheck(session))

    async def _recheck(self, session: Session) -> None:
        try:
            await self._check([session])
        except PlatformError as error:  # the next round checks it
            log.warning("credentials.not_checked", user_id=session.user_id, code=error.code)

    async def _check_all(self) -> None:
        await self._check(tuple(self._hub.sessions.values()))

    async def _check(self, sessions: Iterable[Session]) -> None:
        connections = [one for session in sessions for one in session.connections if isinstance(one, Subscriber)]
        credentials = {one.credential for one in connections if one.credential is not None}
        ended = await self._credentials.ended(list(credentials)) if credentials else set()
        for connection in connections:
            if connection.credential in ended:  # it may have another one by now
                connection.close(SIGNED_OUT)
        for credential in ended:
            log.info("connection.signed_out", user_id=credential.user_id)
