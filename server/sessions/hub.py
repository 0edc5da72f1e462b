"""All sessions of this instance: opened on demand, renewed by one heartbeat, dropped when idle, drained at the end."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from server.aio import TaskSet
from server.ports import Accepted, Announcement, ControlMessage, NewTurn, ReplicasUnavailableError
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
from server.protocol.shapes import AgentStatus, Turn, TurnStatus
from server.sessions.admission import Admission
from server.sessions.context import SessionContext
from server.sessions.events.log import Subscription
from server.sessions.events.logs import LocalLogs, Logs
from server.sessions.events.snapshot import Cancelled, Connection, Snapshot
from server.sessions.maintenance import RHYTHM, Maintenance, Rhythm
from server.sessions.open_sessions import OpenSessions
from server.sessions.session import Session
from server.sessions.turn_waits import TurnWaits
from server.sessions.turns.attempt import AttemptServices

log = structlog.get_logger(__name__)
_CLOSED: Final = frozenset(status for status in AgentStatus if status.closed)
T = TypeVar("T")
_CLAIMS_AT_ONCE: Final = 16
_OF_CONNECTIONS: Final = ("recheck", "connections", "connected")


class RefusedConnectionError(Exception):
    """The user may not open this connection; `code` says why."""

    def __init__(self, code: CloseCode) -> None:
        self.code = code
        super().__init__(code.reason)


class TurnUnsentError(Exception):
    """The message was stored and not sent: its turn is `unsent`, with the error."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        super().__init__(f"turn {turn.id} is unsent")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A connection of a session: the snapshot for its `ready`, and where it reads on."""

    session: Session
    subscription: Subscription
    snapshot: Snapshot
    resumed: bool


class SessionHub:
    """Use as `async with hub.running():`."""

    def __init__(
        self,
        attempts: AttemptServices,
        logs: Logs | None = None,
        rhythm: Rhythm = RHYTHM,
        owner: str | None = None,
        *,
        has_budget: Callable[[str], Awaitable[bool]] | None = None,
        on_message: Callable[[ControlMessage], None] = lambda message: None,
    ) -> None:
        """`has_budget`: whether a user whose message the budget refused may send it after all. `on_message`: called
        with each control message that is about a user's credentials or connections, and not about turns and events."""
        self.owner = owner or uuid.uuid4().hex
        self._logs = logs or LocalLogs(attempts.limits, attempts.now)
        self.draining = False
        self._attempts = attempts
        self._has_budget = has_budget
        self._on_message = on_message
        self._limits = attempts.limits
        self._open = OpenSessions(lambda user_id: Session(user_id, self._context), attempts.store, self._logs)
        self._tasks = TaskSet("sessions")
        self.admission = Admission(self._limits.running_turns, self._limits.expected_wait_seconds)
        self._maintenance = Maintenance(self, attempts.store, self._logs, rhythm, self._limits.idle_session_seconds)
        self._context = SessionContext(
            attempts=attempts,
            logs=self._logs,
            admission=self.admission,
            owner=self.owner,
            is_current=self._maintenance.is_current,
            may_start=self.may_start,
            is_draining=lambda: self.draining,
            spawn=self._tasks.create,
            forget=self._open.forget,
            recover=self.spawn_recovery,
        )
        self._waits = TurnWaits(attempts.store, self.session, self._context.clock)

    @property
    def sessions(self) -> dict[str, Session]:
        """Those that are loaded, by user id."""
        return self._open.by_user

    @property
    def opening(self) -> Container[str]:
        """The users whose sessions are being loaded."""
        return self._open.opening

    # -- what transports and handlers ask ------------------------------------------------------------------------

    async def send(self, new: NewTurn) -> Accepted:
        """Accept a message. Raises PlatformError."""
        self._refuse_while_draining()
        accepted = await self._accept_in_budget(new.user_id, lambda session: session.send(new))
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
        accepted = await self._accept_in_budget(user_id, lambda session: session.retry(turn_id))
        log.info("turn.retried", user_id=user_id, turn_id=turn_id, attempt=accepted.turn.attempt)
        return accepted

    async def _accept_in_budget(self, user_id: str, accept: Callable[[Session], Awaitable[Accepted]]) -> Accepted:
        """Accept again what the cached budget does not allow and the current one does."""
        try:
            accepted = await accept(await self.session(user_id))
        except PlatformError as refusal:  # nothing was stored
            if refusal.code is not ErrorCode.BUDGET_EXCEEDED or not await self._has_current_budget(user_id):
                raise
            return await accept(await self.session(user_id))
        turn = accepted.turn
        if turn.status is not TurnStatus.UNSENT or accepted.duplicate or not await self._has_current_budget(user_id):
            return accepted
        return await (await self.session(user_id)).retry(turn.id, is_paced=False)

    async def _has_current_budget(self, user_id: str) -> bool:
        return self._has_budget is not None and await self._has_budget(user_id)

    async def snapshot(self, user_id: str) -> Snapshot:
        return (await self.session(user_id)).snapshot()

    async def while_idle(self, user_id: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` while no turn runs or waits; none begins before it is done. Raises PlatformError(busy)."""
        return await (await self.session(user_id)).while_idle(work)

    async def wait_for_end(self, user_id: str, turn_id: str, timeout: float) -> Turn | None:
        """The ended turn, or None if it is still open after `timeout` seconds, or at the end of a drain.

        Raises PlatformError(not_found).
        """
        return await self._waits.wait(user_id, turn_id, timeout)

    async def turn_if_ended(self, user_id: str, turn_id: str) -> Turn | None:
        """The turn, if it has ended."""
        turn = await self._attempts.store.turn(user_id, turn_id)
        return turn if turn is not None and turn.status.ended else None

    async def attach(self, user_id: str, connection: Connection, after: EventCursor | None) -> Attachment:
        """Join a connection to its session. Raises RefusedConnectionError, PlatformError(supabase_unavailable)."""
        session = await self.session(user_id)
        if after is not None:
            with suppress(ReplicasUnavailableError):
                await session.replication.fetch(after)
        if self.draining:
            raise RefusedConnectionError(SERVICE_RESTART)
        if session.is_over:
            raise RefusedConnectionError(MOVED)
        if len(session.connections) >= self._limits.connections_per_user:
            raise RefusedConnectionError(TOO_MANY_CONNECTIONS)
        resumed = after is not None and session.log.holds(after)
        return Attachment(session, session.attach(connection, after), session.snapshot(), resumed)

    async def session(self, user_id: str) -> Session:
        """The user's session, loaded once for all callers that wait for it."""
        return await self._open.get(user_id)

    def announce(self, user_id: str, event: Announcement) -> None:
        """Publish an event to the user's connections on every instance."""
        self._logs.broadcast(ControlMessage("announce", user_id, event=event))

    def agent_changed(self, user_id: str, status: AgentStatus, reason: str | None) -> None:
        """Publish the agent's status to the user's connections on every instance."""
        self.announce(user_id, Announcement("agent.status", {"status": status, "reason": reason}))

    def recheck(self, user_id: str) -> None:
        """Have every instance check the user's account, sign-ins and API keys: one of them may have ended."""
        self.broadcast(ControlMessage("recheck", user_id))

    def broadcast(self, message: ControlMessage) -> None:
        """Send it to every instance, this one included."""
        self._logs.broadcast(message)

    @property
    def has_others(self) -> bool:
        """Whether there may be other instances."""
        return self._logs.is_shared

    # -- what the event logs call ----------------------------------------------------------------------------------

    def received(self, message: ControlMessage) -> None:
        session = self.sessions.get(message.user_id)
        is_closed = message.event is not None and message.event.fields.get("status") in _CLOSED
        if is_closed:
            self._on_message(ControlMessage("recheck", message.user_id))
        if message.kind in _OF_CONNECTIONS:
            self._on_message(message)
        elif message.kind == "unowned":
            self.spawn_recovery(message.user_id)
        elif session is not None and message.kind == "refresh":
            session.refresh(message.ended)
        elif session is not None and message.event is not None:
            session.announce(message.event)
            if is_closed:
                session.refresh()
                session.disconnect(ACCOUNT_CLOSED)

    def leases_are_current(self) -> bool:
        return self._maintenance.is_current()

    def replicas_unavailable(self) -> None:
        """Owned sessions go on; of the others no events are received."""
        self._tasks.create(self._serve_alone())

    async def _serve_alone(self) -> None:
        at_once = asyncio.Semaphore(_CLAIMS_AT_ONCE)

        async def one(session: Session) -> None:
            async with at_once:
                try:
                    await session.claim_or_leave()
                except PlatformError as error:
                    log.warning("session.not_claimed", user_id=session.user_id, code=error.code)
                    session.disconnect(TRY_AGAIN_LATER)

        await asyncio.gather(*(one(session) for session in tuple(self.sessions.values())))

    @property
    def counts(self) -> dict[str, int]:
        """For metrics."""
        return {
            "sessions": len(self.sessions),
            "connections": sum(len(session.connections) for session in self.sessions.values()),
            "running_turns": self.admission.running,
            "waiting_turns": self.admission.waiting,
        }

    # -- life ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator["SessionHub"]:
        """Run the periodic work; at the end stop every session, leaving open turns to be recovered."""
        async with self._logs.running(self):
            try:
                async with self._maintenance.running():
                    yield self
            finally:
                self.draining = True
                await self._open.aclose()
                await self._tasks.aclose()

    async def drain(self, seconds: float) -> None:
        """Start nothing new, let running turns finish for up to `seconds`, then release every session and close its
        connections with SERVICE_RESTART."""
        self.draining = True
        log.info("server.draining", running_turns=self.admission.running, seconds=seconds)
        await self._open.finish(seconds)
        self._waits.end()
        await self._open.hand_over()

    def may_start(self) -> bool:
        """Whether anything may begin here that needs a lease."""
        return self._maintenance.is_current() and not self.draining

    def _refuse_while_draining(self) -> None:
        if self.draining:
            raise PlatformError(ErrorCode.DRAINING, retry_after=1.0)

    def spawn_recovery(self, user_id: str) -> None:
        if not self.draining:
            self._tasks.create(self.recover(user_id))

    async def recover(self, user_id: str) -> None:
        """Have the user's session claim its open turns."""
        await self._open.recover(user_id)
