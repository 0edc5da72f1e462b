"""All sessions of this instance: opened on demand, kept by one heartbeat, dropped when idle, drained at the end."""

import asyncio
import contextvars
import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from server.ports import Accepted, Lease, NewTurn, Notice, RelayAwayError
from server.protocol.codes import (
    ACCOUNT_CLOSED,
    MOVED,
    SERVICE_RESTART,
    TOO_MANY_CONNECTIONS,
    TRY_AGAIN_LATER,
    CloseCode,
    ErrorCode,
)
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, Turn
from server.sessions.admission import Admission
from server.sessions.attempt import AttemptServices
from server.sessions.log import Subscription
from server.sessions.placement import LocalPlacement, Placement
from server.sessions.services import SessionServices
from server.sessions.session import Session
from server.sessions.views import Cancelled, Connection, Snapshot

log = structlog.get_logger(__name__)
T = TypeVar("T")
_ASKED_AT_ONCE: Final = 500
_ADOPTED_AT_ONCE: Final = 100
_CLAIMS_AT_ONCE: Final = 16


class RefusedConnectionError(Exception):
    """The user may not open this connection; `code` says why."""

    def __init__(self, code: CloseCode) -> None:
        self.code = code
        super().__init__(code.reason)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often the hub does its rounds, in seconds. A lease lasts 12 s by the database's clock.

    `look`: what other instances changed in the rows of sessions held here. `silence`: after so long without a word of
    their owner, sessions that are followed here are asked about.
    """

    heartbeat: float = 4.0
    renewal_limit: float = 8.0
    look: float = 1.0
    scan: float = 2.0
    silence: float = 6.0
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

    def __init__(
        self,
        attempts: AttemptServices,
        placement: Placement | None = None,
        rhythm: Rhythm = _RHYTHM,
        owner: str | None = None,
    ) -> None:
        self.owner = owner or uuid.uuid4().hex
        self._placement = placement or LocalPlacement(attempts.limits, attempts.now)
        self.draining = False
        self._attempts = attempts
        self._limits = attempts.limits
        self._rhythm = rhythm
        self._sessions: dict[str, Session] = {}
        self._opening: dict[str, asyncio.Task[Session]] = {}
        self._heard: dict[str, EventCursor] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewed_at = -math.inf
        self.admission = Admission(self._limits.running_turns, self._limits.expected_wait_seconds)
        self._services = SessionServices(
            attempts=attempts,
            placement=self._placement,
            admission=self.admission,
            owner=self.owner,
            is_current=self._is_current,
            may_start=self._may_start,
            is_draining=lambda: self.draining,
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
        until = self._services.clock() + timeout
        while True:
            events = (await self.session(user_id)).log  # the session may be another one by now
            ending = events.ending(turn_id)  # before the look at the row, so that no end falls between
            turn = await self._attempts.store.turn(user_id, turn_id)
            if turn is None or turn.status.ended:
                events.settle_ending(turn_id)
            if turn is None:
                raise PlatformError(ErrorCode.NOT_FOUND)
            if turn.status.ended:
                return turn
            try:
                await asyncio.wait_for(asyncio.shield(ending), until - self._services.clock())
            except TimeoutError:
                return None

    async def ended(self, user_id: str, turn_id: str) -> Turn | None:
        """The turn, if it has ended."""
        turn = await self._attempts.store.turn(user_id, turn_id)
        return turn if turn is not None and turn.status.ended else None

    async def attach(self, user_id: str, connection: Connection, after: EventCursor | None) -> Attachment:
        """Join a connection to its session. Raises RefusedConnectionError, PlatformError(supabase_unavailable)."""
        session = await self.session(user_id)
        if after is not None:
            with suppress(RelayAwayError):
                await session.log.fetch(after)
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
            session.used_at = self._services.clock()
            return session
        opening = self._opening.get(user_id)
        if opening is None:
            opening = self._opening[user_id] = asyncio.create_task(self._open(user_id))
            opening.add_done_callback(partial(self._opened, user_id))
        return await asyncio.shield(opening)

    def agent_changed(self, user_id: str, status: AgentStatus, reason: str | None) -> None:
        """Tell the user's connections, on every instance, where their agent stands."""
        self._placement.announce(Notice("agent", user_id, status, reason))

    # -- what other instances and the relay say ----------------------------------------------------------------------

    def noticed(self, notice: Notice) -> None:
        session = self._sessions.get(notice.user_id)
        if notice.kind == "free":
            self._see_to(notice.user_id)
        elif session is not None and notice.kind == "look":
            session.look()
        elif session is not None and notice.status is not None:
            session.tell_agent(notice.status, notice.reason)
            if notice.status in (AgentStatus.BLOCKED, AgentStatus.DELETING):
                session.disconnect(ACCOUNT_CLOSED)

    def relay_away(self) -> None:
        """Sessions held here go on from memory; of the others, nothing can be heard."""
        self._spawn(self._serve_alone())

    async def _serve_alone(self) -> None:
        at_once = asyncio.Semaphore(_CLAIMS_AT_ONCE)

        async def one(session: Session) -> None:
            async with at_once:
                try:
                    await session.serve_alone()
                except PlatformError as error:
                    log.warning("session.not_claimed", user_id=session.user_id, code=error.code)
                    session.disconnect(TRY_AGAIN_LATER)

        await asyncio.gather(*(one(session) for session in tuple(self._sessions.values())))

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
            asyncio.create_task(self._round(self._rhythm.look, self._look_at_own_work)),
            asyncio.create_task(self._round(self._rhythm.scan, self._adopt_orphans)),
            asyncio.create_task(self._round(self._rhythm.silence, self._ask_about_the_silent)),
            asyncio.create_task(self._round(self._rhythm.accounts, self._close_accounts)),
            asyncio.create_task(self._round(self._rhythm.reap, self._drop_idle)),
        ]
        async with self._placement.running(self):
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
        log.info("server.draining", running_turns=self.admission.running, seconds=seconds)
        leaving = [asyncio.create_task(self._see_off(session)) for session in tuple(self._sessions.values())]
        if leaving:
            _, late = await asyncio.wait(leaving, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
        await asyncio.gather(*(self._hand_over(session) for session in tuple(self._sessions.values())))

    async def _see_off(self, session: Session) -> None:
        """Send the clients away once nothing runs for them here."""
        if session.worker is not None:
            await asyncio.wait({session.worker})
        session.disconnect(SERVICE_RESTART)

    async def _hand_over(self, session: Session) -> None:
        """Leave what still runs to another instance: now, not when the lease has run out."""
        open_turns = bool(session.view)
        lease = await session.aclose()
        if lease is not None:
            with suppress(PlatformError):
                await self._attempts.store.release(lease)
            if open_turns:
                self._placement.announce(Notice("free", session.user_id))
        session.disconnect(SERVICE_RESTART)

    async def _close_all(self) -> None:
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        sessions = tuple(self._sessions.values())
        self._sessions.clear()
        await asyncio.gather(*(self._hand_over(session) for session in sessions))
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _is_current(self) -> bool:
        return self._services.clock() - self._renewed_at < self._rhythm.renewal_limit

    def _may_start(self) -> bool:
        return self._is_current() and not self.draining

    def _refuse_while_draining(self) -> None:
        if self.draining:
            raise PlatformError(ErrorCode.DRAINING, retry_after=1.0)

    async def _open(self, user_id: str) -> Session:
        session = Session(user_id, self._services)
        try:
            await session.load()
        except BaseException:
            session.log.close()
            raise
        self._sessions[user_id] = session
        return session

    def _opened(self, user_id: str, opening: asyncio.Task[Session]) -> None:
        self._opening.pop(user_id, None)
        if not opening.cancelled():
            opening.exception()  # who asked is told, unless all of them have gone

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
        held = {user_id: session.lease for user_id, session in self._sessions.items() if session.lease is not None}
        fences = await self._attempts.store.renew(self.owner) if held else {}
        self._renewed_at = before
        for user_id, lease in held.items():
            session = self._sessions.get(user_id)
            # One that was given back or taken again since then is another lease.
            if session is not None and session.lease is lease and fences.get(user_id) != lease.fence:
                session.lost()
        for user_id, fence in fences.items():
            if self._is_forgotten(user_id):
                await self._attempts.store.release(Lease(user_id, self.owner, fence), unless_open=True)
        for session in self._sessions.values():
            session.work()

    def _is_forgotten(self, user_id: str) -> bool:
        """Whether we hold a lease that nobody here knows of: the answer that told of it was lost."""
        session = self._sessions.get(user_id)
        return user_id not in self._opening and (session is None or (session.lease is None and session.is_resting))

    async def _look_at_own_work(self) -> None:
        """What other instances changed in the rows of sessions held here, should their notice have been lost."""
        if any(session.lease is not None for session in self._sessions.values()):
            for work in await self._attempts.store.owned_work(self.owner):
                if (session := self._sessions.get(work.user_id)) is not None:
                    session.check(work)

    async def _ask_about_the_silent(self) -> None:
        """Sessions that others run: one whose owner says nothing may have none any more, and an untold end."""
        followed = [session for session in self._sessions.values() if session.is_followed and session.view]
        silent = [session for session in followed if self._heard.get(session.user_id) == session.log.cursor]
        self._heard = {session.user_id: session.log.cursor for session in followed}
        for session in silent:
            session.look_again()

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
            users = await self._attempts.store.unowned_work(limit=_ADOPTED_AT_ONCE)
            await asyncio.gather(*(self._look_after(user_id) for user_id in users))

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
                session.log.close()
        await self._placement.keep([one.user_id for one in self._sessions.values() if one.connections])
