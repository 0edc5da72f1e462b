"""All sessions of this instance: opened on demand, kept by one heartbeat, dropped when idle, drained at the end."""

import asyncio
import contextvars
import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog

from server.ports import Accepted, Lease, NewTurn
from server.protocol.codes import ACCOUNT_CLOSED, MOVED, SERVICE_RESTART, TOO_MANY_CONNECTIONS, CloseCode, ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, Turn
from server.sessions.admission import Admission
from server.sessions.attempt import AttemptServices
from server.sessions.log import Subscription
from server.sessions.services import SessionServices
from server.sessions.session import Session
from server.sessions.views import Cancelled, Connection, Snapshot

log = structlog.get_logger(__name__)
T = TypeVar("T")
_ASKED_AT_ONCE: Final = 500


class RefusedConnectionError(Exception):
    """The user may not open this connection; `code` says why."""

    def __init__(self, code: CloseCode) -> None:
        self.code = code
        super().__init__(code.reason)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often the hub does its rounds, in seconds. A lease lasts 12 s by the database's clock."""

    heartbeat: float = 4.0
    renewal_limit: float = 8.0
    scan: float = 5.0
    accounts: float = 10.0
    reap: float = 30.0


_RHYTHM = Rhythm()


@dataclass(frozen=True, slots=True)
class Attachment:
    """A connection's hold on its session: what to show first, and where to read on."""

    session: Session
    subscription: Subscription
    snapshot: Snapshot
    resumed: bool


class SessionHub:
    """Use as `async with hub.running():`."""

    def __init__(self, attempts: AttemptServices, rhythm: Rhythm = _RHYTHM, owner: str | None = None) -> None:
        self.owner = owner or uuid.uuid4().hex
        self.draining = False
        self._attempts = attempts
        self._limits = attempts.limits
        self._rhythm = rhythm
        self._sessions: dict[str, Session] = {}
        self._opening: dict[str, asyncio.Task[Session]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewed_at = -math.inf
        self.admission = Admission(self._limits.running_turns, self._limits.expected_wait_seconds)
        self._services = SessionServices(
            attempts=attempts,
            admission=self.admission,
            owner=self.owner,
            is_current=self._is_current,
            may_start=self._may_start,
            spawn=self._spawn,
            forget=self._forget,
            look_after=self._see_to,
        )

    # -- what transports and handlers ask ------------------------------------------------------------------------

    async def send(self, new: NewTurn) -> Accepted:
        """Accept a message. Raises PlatformError."""
        self._refuse_while_draining()
        accepted = await (await self.session(new.user_id)).send(new)
        log.info(
            "turn.accepted",
            user_id=new.user_id,
            turn_id=accepted.turn.id,
            duplicate=accepted.duplicate,
            started=accepted.started,
            on_busy=new.on_busy,
        )
        return accepted

    async def cancel(self, user_id: str, turn_id: str | None) -> Cancelled:
        cancelled = await (await self.session(user_id)).cancel(turn_id)
        log.info("turn.cancel_requested", user_id=user_id, turn_id=cancelled.turn.id, duplicate=cancelled.duplicate)
        return cancelled

    async def retry(self, user_id: str, turn_id: str) -> Accepted:
        self._refuse_while_draining()
        accepted = await (await self.session(user_id)).retry(turn_id)
        log.info("turn.retried", user_id=user_id, turn_id=turn_id, attempt=accepted.turn.attempt)
        return accepted

    async def snapshot(self, user_id: str) -> Snapshot:
        return (await self.session(user_id)).snapshot()

    async def while_idle(self, user_id: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` while no turn runs or waits; none begins before it is done. Raises PlatformError(busy)."""
        return await (await self.session(user_id)).while_idle(work)

    async def wait_for_end(self, user_id: str, turn_id: str, timeout: float) -> Turn | None:
        """The ended turn, or None if it is still open after `timeout` seconds. Raises PlatformError(not_found)."""
        session = await self.session(user_id)
        ending = session.ending(turn_id)  # before the look at the row, so that no end falls between
        turn = await self._attempts.store.turn(user_id, turn_id)
        if turn is None or turn.status.ended:
            session.forget_ending(turn_id)
        if turn is None:
            raise PlatformError(ErrorCode.NOT_FOUND)
        if turn.status.ended:
            return turn
        with suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(ending), timeout)
        return None

    async def attach(self, user_id: str, connection: Connection, after: EventCursor | None) -> Attachment:
        """Join a connection to its session. Raises RefusedConnectionError, PlatformError(supabase_unavailable)."""
        session = await self.session(user_id)
        if self.draining:
            raise RefusedConnectionError(SERVICE_RESTART)
        if session.is_over:
            raise RefusedConnectionError(MOVED)
        if len(session.connections) >= self._limits.connections_per_user:
            raise RefusedConnectionError(TOO_MANY_CONNECTIONS)
        resumed = after is not None and session.log.holds(after)
        return Attachment(session, session.attach(connection, after), session.snapshot(), resumed)

    async def session(self, user_id: str) -> Session:
        """The user's session, loaded once however many ask at the same time."""
        if (session := self._sessions.get(user_id)) is not None:
            session.last_used = self._services.clock()
            return session
        opening = self._opening.get(user_id)
        if opening is None:
            opening = self._opening[user_id] = asyncio.create_task(self._open(user_id))
            opening.add_done_callback(lambda _: self._opening.pop(user_id, None))
        return await asyncio.shield(opening)

    def agent_changed(self, user_id: str, status: AgentStatus, reason: str | None) -> None:
        """Tell the user's connections where their agent stands."""
        if (session := self._sessions.get(user_id)) is None:
            return
        session.announce_agent(status, reason)
        if status in (AgentStatus.BLOCKED, AgentStatus.DELETING):
            session.disconnect(ACCOUNT_CLOSED)

    @property
    def counts(self) -> dict[str, int]:
        """For metrics."""
        return {
            "sessions": len(self._sessions),
            "connections": sum(len(session.connections) for session in self._sessions.values()),
            "running_turns": self.admission.running,
            "waiting_turns": self.admission.waiting,
        }

    # -- life ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator["SessionHub"]:
        """Keep the rounds going; at the end stop every session, leaving open turns to be recovered."""
        self._renewed_at = self._services.clock()
        rounds = [
            asyncio.create_task(self._round(self._rhythm.heartbeat, self._renew)),
            asyncio.create_task(self._round(self._rhythm.scan, self._adopt_orphans)),
            asyncio.create_task(self._round(self._rhythm.accounts, self._close_accounts)),
            asyncio.create_task(self._round(self._rhythm.reap, self._drop_idle)),
        ]
        try:
            yield self
        finally:
            self.draining = True
            for task in rounds:
                task.cancel()
            await asyncio.gather(*rounds, return_exceptions=True)
            await self._close_all()

    async def drain(self, seconds: float) -> None:
        """Start nothing new, let running turns finish for up to `seconds`, then send every client away to reconnect."""
        self.draining = True
        workers = [session.worker for session in self._sessions.values() if session.worker is not None]
        log.info("server.draining", running_turns=len(workers), seconds=seconds)
        idle = [session for session in self._sessions.values() if session.worker is None]
        await asyncio.gather(*(self._release(session) for session in idle))  # the next owner need not wait for these
        if workers:
            await asyncio.wait(workers, timeout=seconds)
        for session in tuple(self._sessions.values()):
            session.disconnect(SERVICE_RESTART)

    async def _close_all(self) -> None:
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        sessions = tuple(self._sessions.values())
        self._sessions.clear()
        await asyncio.gather(*(session.aclose() for session in sessions))
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._release(session) for session in sessions))

    def _is_current(self) -> bool:
        return self._services.clock() - self._renewed_at < self._rhythm.renewal_limit

    def _may_start(self) -> bool:
        return self._is_current() and not self.draining

    def _refuse_while_draining(self) -> None:
        if self.draining:
            raise PlatformError(ErrorCode.DRAINING, retry_after=1.0)

    async def _open(self, user_id: str) -> Session:
        if (leaving := self._leaving.get(user_id)) is not None:
            await asyncio.wait({leaving})  # else its release could end the lease that is taken now
        session = Session(user_id, self._services)
        await session.load()
        self._sessions[user_id] = session
        return session

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        # In a context of its own: it outlives the request that happened to need it first, whose id is not its own.
        task = asyncio.create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("session.task_failed", exc_info=error)

    # -- rounds --------------------------------------------------------------------------------------------------

    async def _round(self, seconds: float, work: Any) -> None:
        while True:
            try:
                await work()
            except PlatformError as error:
                log.warning("hub.round_failed", round=work.__name__, code=error.code)
            except Exception:
                log.exception("hub.round_failed", round=work.__name__)
            await asyncio.sleep(seconds)

    async def _renew(self) -> None:
        before = self._services.clock()
        held = [session for session in self._sessions.values() if session.lease is not None]
        if held:
            fences = await self._attempts.store.renew(self.owner)
            for session in held:
                if session.lease is not None and fences.get(session.user_id) != session.lease.fence:
                    session.lost()
            for user_id, fence in fences.items():
                if user_id not in self._sessions and user_id not in self._opening:
                    await self._attempts.store.release(Lease(user_id, self.owner, fence))
        self._renewed_at = before
        for session in self._sessions.values():
            session.work()

    def _see_to(self, user_id: str) -> None:
        if not self.draining:
            self._spawn(self._look_after(user_id))

    async def _look_after(self, user_id: str) -> None:
        """Have the user's session take up what is open. What fails here is found again by the next scan."""
        try:
            (await self.session(user_id)).look_again()
        except PlatformError as error:
            log.warning("session.not_opened", user_id=user_id, code=error.code)

    def _forget(self, session: Session) -> None:
        if self._sessions.get(session.user_id) is session:
            del self._sessions[session.user_id]

    async def _adopt_orphans(self) -> None:
        """Open or running turns that nobody owns, clients or not: after a crash, and when a lease was lost."""
        if self._may_start():
            for user_id in await self._attempts.store.unowned_work(limit=50):
                await self._look_after(user_id)

    async def _close_accounts(self) -> None:
        """An account that was blocked or deleted loses its connections and stops spending, whoever decided that."""
        served = list(self._sessions)
        for first in range(0, len(served), _ASKED_AT_ONCE):
            for user_id in await self._attempts.store.closed_accounts(served[first : first + _ASKED_AT_ONCE]):
                if (session := self._sessions.get(user_id)) is not None:
                    await self._close_account(session)

    async def _close_account(self, session: Session) -> None:
        session.disconnect(ACCOUNT_CLOSED)
        if not session.is_idle:
            log.info("session.account_closed", user_id=session.user_id)
            with suppress(PlatformError):
                await session.cancel(None)

    async def _drop_idle(self) -> None:
        before = self._services.clock() - self._limits.idle_session_seconds
        for session in tuple(self._sessions.values()):
            if session.is_idle and session.last_used < before:
                del self._sessions[session.user_id]
                leaving = self._leaving[session.user_id] = self._spawn(self._release(session))
                await asyncio.wait({leaving})
                del self._leaving[session.user_id]

    async def _release(self, session: Session) -> None:
        lease, session.lease = session.lease, None
        if lease is not None:
            with suppress(PlatformError):
                await self._attempts.store.release(lease)
