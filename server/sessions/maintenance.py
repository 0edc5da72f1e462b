"""Periodic work for all sessions of an instance: renew leases, recover turns without an owner, drop idle sessions."""

import asyncio
import math
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from server.aio import TaskSet, every
from server.ports import Lease, SessionStore
from server.protocol.codes import ACCOUNT_CLOSED
from server.protocol.errors import PlatformError
from server.sessions.events.logs import Logs
from server.sessions.session import Session

log = structlog.get_logger(__name__)

_UNHEARD_SECONDS: Final = 15.0
"""A lease that is still refused after so long is renewed by an owner whose events do not reach this instance."""
_ASKED_AT_ONCE: Final = 500
_ADOPTED_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Rhythm:
    """The period of each, in seconds. A lease lasts 12 s by the database's clock.

    `poll`: the rows of sessions owned here, for what other instances changed. `silence`: a followed session whose owner
    has published nothing for so long is claimed. `renewal_limit`: leases not renewed for so long are not used.
    """

    heartbeat: float = 4.0
    renewal_limit: float = 8.0
    poll: float = 1.0
    scan: float = 2.0
    silence: float = 6.0
    accounts: float = 10.0
    reap: float = 30.0


RHYTHM: Final = Rhythm()


class Sessions(Protocol):
    """The sessions of an instance; `SessionHub` has them."""

    owner: str

    @property
    def sessions(self) -> dict[str, Session]: ...

    @property
    def opening(self) -> Container[str]: ...

    def may_start(self) -> bool: ...

    async def recover(self, user_id: str) -> None: ...

    def spawn_recovery(self, user_id: str) -> None: ...


class Maintenance:
    """Use as `async with maintenance.running():`."""

    def __init__(self, hub: Sessions, store: SessionStore, logs: Logs, rhythm: Rhythm, idle_seconds: float) -> None:
        self._hub = hub
        self._store = store
        self._logs = logs
        self._rhythm = rhythm
        self._idle_seconds = idle_seconds
        self._renewed_at = -math.inf

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._renewed_at = self._clock()
        rhythm = self._rhythm
        async with TaskSet("maintenance") as tasks:
            for seconds, work in (
                (rhythm.heartbeat, self._renew),
                (rhythm.poll, self._poll_own_work),
                (rhythm.scan, self._adopt_unowned),
                (rhythm.silence, self._claim_silent),
                (rhythm.accounts, self._close_accounts),
                (rhythm.reap, self._drop_idle),
            ):
                name = work.__name__.strip("_")
                tasks.create(every(seconds, work, name=name, expected=(PlatformError,)), name=name)
            yield

    def is_current(self) -> bool:
        """False while the leases could not be renewed in time: other owners may have them by now."""
        return self._clock() - self._renewed_at < self._rhythm.renewal_limit

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()

    async def _renew(self) -> None:
        before = self._clock()
        held = {user_id: session.lease for user_id, session in self._hub.sessions.items() if session.lease is not None}
        fences = await self._store.renew(self._hub.owner) if held else {}
        self._renewed_at = before
        for user_id, lease in held.items():
            session = self._hub.sessions.get(user_id)
            # One that was released or claimed again since then is another lease.
            if session is not None and session.lease is lease and fences.get(user_id) != lease.fence:
                session.lost()
        for user_id, fence in fences.items():
            if self._is_forgotten(user_id):
                lease = Lease(user_id, self._hub.owner, fence)
                if not await self._store.release(lease, None, unless_open=True):
                    self._hub.spawn_recovery(user_id)  # renewed together with the others, the lease never expires
        for session in self._hub.sessions.values():
            session.settle()

    def _is_forgotten(self, user_id: str) -> bool:
        """Whether this instance has a lease in the database that no session here has: the answer was lost."""
        session = self._hub.sessions.get(user_id)
        return user_id not in self._hub.opening and (session is None or (session.lease is None and session.is_quiet))

    async def _poll_own_work(self) -> None:
        """Find what other instances changed in the rows of sessions owned here, if their message was lost."""
        if any(session.lease is not None for session in self._hub.sessions.values()):
            for work in await self._store.owned_work(self._hub.owner):
                if (session := self._hub.sessions.get(work.user_id)) is not None:
                    session.refresh_if_changed(work)

    async def _claim_silent(self) -> None:
        """Claim followed sessions whose owner publishes nothing: it may have crashed before it published an end."""
        for session in tuple(self._hub.sessions.values()):
            if not (session.is_followed and session.view):
                continue
            if session.replication.silent_for > _UNHEARD_SECONDS:
                with suppress(PlatformError):
                    await session.claim_or_leave()
            elif session.replication.silent_for > self._rhythm.silence:
                session.mark_outdated()

    async def _adopt_unowned(self) -> None:
        """Recover open turns without an owner, with or without clients: after a crash, or a lost lease."""
        if self._hub.may_start():
            users = await self._store.unowned_work(limit=_ADOPTED_AT_ONCE)
            await asyncio.gather(*(self._hub.recover(user_id) for user_id in users))

    async def _close_accounts(self) -> None:
        """Close the connections of accounts that were blocked or deleted elsewhere, and cancel what they run."""
        served = list(self._hub.sessions)
        for first in range(0, len(served), _ASKED_AT_ONCE):
            for user_id in await self._store.closed_accounts(served[first : first + _ASKED_AT_ONCE]):
                if (session := self._hub.sessions.get(user_id)) is not None:
                    await self._close_account(session)

    async def _close_account(self, session: Session) -> None:
        session.disconnect(ACCOUNT_CLOSED)
        if not session.is_idle:
            log.info("session.account_closed", user_id=session.user_id)
            with suppress(PlatformError):
                await session.cancel(None)

    async def _drop_idle(self) -> None:
        before = self._clock() - self._idle_seconds
        for session in tuple(self._hub.sessions.values()):
            if session.is_idle and session.last_used < before:
                del self._hub.sessions[session.user_id]
                session.replication.close()
        await self._logs.keep([one.user_id for one in self._hub.sessions.values() if one.connections])
