"""The session of one user: an actor that owns the user's turns while this instance holds the lease.

Whatever reads or changes the user's open turns is a command of one mailbox, so that no answer of the database
overwrites what a later one said. `state.py` decides what comes next; its effects are carried out here. Tasks exist only
while there is something to do, and the lease is held only while turns are open: whichever instance takes the next
message runs it. PostgreSQL decides everything that matters; what is held here is a view of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from server.ports import (
    Accepted,
    Announcement,
    ControlMessage,
    FencedError,
    Lease,
    LogMark,
    NewTurn,
    OwnedWork,
    ReplicasUnavailableError,
)
from server.protocol.codes import MOVED, TRY_AGAIN_LATER, CloseCode, ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.shapes import Turn
from server.sessions.acceptance import Acceptance
from server.sessions.context import SessionContext
from server.sessions.events.log import Subscription
from server.sessions.events.snapshot import Cancelled, Connection, Snapshot, View
from server.sessions.lease import LeaseHolder
from server.sessions.life_cycle import LifeCycle
from server.sessions.open_turns import OpenTurns
from server.sessions.state import BUSY, Effect, Event, Facts, Phase
from server.sessions.turn_runner import RunnableTurn, TurnRunner

log = structlog.get_logger(__name__)
T = TypeVar("T")
_OPENING_SECONDS: Final = 5.0


class Session:
    """See the module. Methods are called from the one event loop."""

    __slots__ = (
        "_acceptance",
        "_is_refreshing",
        "_mailbox",
        "_runnable",
        "_store",
        "connections",
        "context",
        "held",
        "life",
        "log",
        "open_turns",
        "replication",
        "runner",
        "used_at",
        "user_id",
    )

    def __init__(self, user_id: str, context: SessionContext) -> None:
        self.user_id = user_id
        self.log, self.replication = context.logs.open(user_id, self.lost)
        self.connections: list[Connection] = []
        self.used_at = context.clock()
        self.context = context
        self._store = context.attempts.store
        self.life = LifeCycle(self, context)
        self._mailbox = self.life.mailbox
        self.open_turns = OpenTurns(user_id, self._store, self.log)
        self.held = LeaseHolder(user_id, context, self.replication, self.open_turns)
        self.runner = TurnRunner(context, self.log, self)
        self._runnable: RunnableTurn | None = None
        self._acceptance = Acceptance(self)
        self._is_refreshing = False

    # -- what callers ask ----------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what is open for this user, and claim it if no other instance owns it.

        Raises PlatformError(events_unavailable) where another instance owns the session and cannot be followed.
        """
        try:
            await self.replication.open()
        except ReplicasUnavailableError:
            await self._claim_or_refuse()
        if self.log.is_unused and self.lease is None:
            running, queued = await self._store.open_turns(self.user_id)
            if self.log.is_unused:  # else its owner has published meanwhile what is newer than these rows
                self.open_turns.begin(running, queued)
            if not self.replication.is_available:
                await self._claim_or_refuse()
        if self.view:
            self.doubt()

    async def _claim_or_refuse(self) -> None:
        self.used()
        if not await self._mailbox.do(self.claim):
            raise PlatformError(ErrorCode.EVENTS_UNAVAILABLE, retry_after=2.0)

    async def send(self, new: NewTurn) -> Accepted:
        store = partial(self._store.accept, new, allowance=self.context.attempts.limits.allowance())
        return await self._mailbox.do(partial(self._acceptance.accept, store))

    async def retry(self, turn_id: str, *, is_paced: bool = True) -> Accepted:
        """`is_paced`: the user asks for it, and it counts as a message does."""
        allowance = self.context.attempts.limits.allowance(is_paced=is_paced)
        store = partial(self._store.retry, self.user_id, turn_id, allowance=allowance)
        return await self._mailbox.do(partial(self._acceptance.accept, store))

    async def cancel(self, turn_id: str | None) -> Cancelled:
        return await self._mailbox.do(partial(self._acceptance.cancel, turn_id))

    async def while_idle(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` as the owner of a user who has nothing open: nothing begins meanwhile.

        Raises PlatformError(busy).
        """

        async def alone() -> T:
            if self.life.phase in BUSY or not await self.claim() or self.open_turns:
                raise PlatformError(ErrorCode.BUSY)
            return await work()

        return await self._mailbox.do(alone)

    def snapshot(self) -> Snapshot:
        running = self.log.view.running
        text = "" if running is None else self.log.reply(running.turn_id, running.attempt)
        return Snapshot(self.log.cursor, running, text, self.log.view.waiting)

    def attach(self, connection: Connection, after: EventCursor | None) -> Subscription:
        """Let a connection read the log from `after` (or from now); no await between this and `snapshot`."""
        self.connections.append(connection)
        self.used()
        return self.log.subscribe(after, connection.wake)

    def used(self) -> None:
        """It is not idle yet."""
        self.used_at = self.context.clock()

    def detach(self, connection: Connection, subscription: Subscription) -> None:
        subscription.close()
        if connection in self.connections:
            self.connections.remove(connection)
        self.used()

    def announce(self, event: Announcement) -> None:
        """Publish it. Every instance is asked to, and the owner does; without one, the next to claim the session."""
        if not self.replication.is_shared:
            self._append(event)
        elif self.lease is not None or self.connections:
            self.context.spawn(self._quietly(partial(self._announce, event)))

    # -- what the instance asks ----------------------------------------------------------------------------------

    def doubt(self) -> None:
        """Open turns may have no owner, or an answer of the database was lost: claim the session and compare."""
        self.life.move(Event.DOUBTED)
        self.settle()

    def refresh(self, ended: str | None = None) -> None:
        """Another instance has changed the rows; `ended` is a turn that it ended there."""
        if self.lease is not None and not self.is_over and not (self._is_refreshing and ended is None):
            self._is_refreshing = True
            self.context.spawn(self._refresh(ended))

    def compare(self, work: OwnedWork) -> None:
        """Read the rows if they contain anything that is not known here."""
        is_known = work.cancelled is None or self.runner.is_stopping(work.cancelled)
        if not is_known or work.waiting != self.view.waiting_ids:
            self.refresh()

    def settle(self) -> None:
        """Do what comes next, if anything does."""
        self.life.settle()

    async def serve_alone(self) -> None:
        """Other instances cannot be reached: claim the session, or close its connections if that is refused."""
        if self.lease is None and not self.is_over:
            owns = bool(self.connections) and await self._mailbox.do(self.claim)
            if not owns and self.lease is None:
                self._leave(TRY_AGAIN_LATER)

    async def claim_from_silence(self) -> None:
        """Claim a session whose owner has published nothing for longer than a lease lasts. If the claim is refused, its
        owner's events do not reach this instance: close the connections."""
        if self.lease is None and not self.is_over and not await self._mailbox.do(self.claim, always=True):
            log.warning("session.owner_unheard", user_id=self.user_id)
            self._leave(TRY_AGAIN_LATER)

    # -- where it stands -----------------------------------------------------------------------------------------

    @property
    def lease(self) -> Lease | None:
        return self.held.lease

    @property
    def view(self) -> View:
        """What is open, as far as this instance knows."""
        return self.open_turns.view if self.held.publishes else self.log.view

    @property
    def last_used(self) -> float:
        return max(self.used_at, self.runner.ended_at)

    @property
    def is_idle(self) -> bool:
        """Whether it can be dropped: no connection, no lease, nothing to do."""
        return self.is_quiet and not (self.connections or self.lease)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being done here that could need or bring a lease."""
        return self.life.is_quiet

    @property
    def is_followed(self) -> bool:
        """Whether another instance may be the owner, whose events are read here."""
        return self.replication.is_shared and self.lease is None

    @property
    def is_over(self) -> bool:
        """Lost to another owner, or closed: the next caller needs a new session."""
        return self.life.phase is Phase.LOST

    async def quiet(self) -> None:
        """Return when no turn runs here and the lease was released, or is kept with nothing to do."""
        await self.life.quiet()

    # -- the life cycle ------------------------------------------------------------------------------------------

    @property
    def commands(self) -> Mapping[Effect, Callable[[], Awaitable[None]]]:
        return {
            Effect.CLAIM: self._claim_open,
            Effect.ACQUIRE_SLOT: self._start_waiting,
            Effect.RELEASE: self._release,
        }

    def facts(self) -> Facts:
        context, view = self.context, self.open_turns.view
        draining = context.is_draining()
        return Facts(
            holds=self.lease is not None,
            waits=bool(view.waiting),
            dangles=view.running is not None,
            may_start=context.may_start(),
            draining=draining,
            keeps=not self.replication.is_available and self._is_wanted and not draining,
        )

    @property
    def _is_wanted(self) -> bool:
        """Whether it has connections, or was opened just now for one."""
        return bool(self.connections) or self.context.clock() - self.used_at < _OPENING_SECONDS

    def run(self) -> None:
        assert self._runnable is not None
        self.runner.start(self._runnable)
        self._runnable = None

    def retire(self) -> None:
        self._leave(MOVED)

    def lost(self) -> None:
        """Another owner has the session: stop everything here, change nothing, close the connections."""
        if not self.is_over:
            log.warning("session.lost", user_id=self.user_id, fence=self.lease and self.lease.fence)
            self.life.move(Event.FENCED)

    def _leave(self, code: CloseCode) -> None:
        self.life.move(Event.CLOSED)
        self.held.drop()
        self.context.forget(self.user_id, self)
        self.disconnect(code)
        self.replication.close()
        self.runner.abandon()

    def disconnect(self, code: CloseCode) -> None:
        for connection in tuple(self.connections):
            connection.close(code)

    async def aclose(self) -> tuple[Lease, LogMark] | None:
        """Stop the tasks. A running turn stays running in the database, for the next owner: the lease to release, and
        where the log stops."""
        self.life.move(Event.CLOSED)
        await self.runner.aclose()
        await self._mailbox.aclose()
        lease, (mark, _) = self.lease, await self.held.prepare_release()
        self.held.drop()
        self.replication.close()
        return None if lease is None else (lease, mark)

    # -- what the runner reports ---------------------------------------------------------------------------------

    def attempt_ended(self) -> None:
        self.life.move(Event.ATTEMPT_ENDED)

    async def end_stored(self, turn: Turn) -> None:
        async def publish() -> None:
            self.open_turns.ended(turn)
            self.life.move(Event.END_STORED)

        await self._mailbox.do(publish, always=True)

    async def failed(self, error: Exception) -> None:
        """Hold the lease during a pause, so that no other instance fails in the same way meanwhile. The open turns are
        in the database: the next owner goes on with them."""
        if not isinstance(error, FencedError) and not self.is_over:
            rest = self.context.crashes.failed(self.user_id)
            log.error("session.worker_failed", user_id=self.user_id, retry_in=rest, exc_info=error)
            await asyncio.sleep(rest)
        self.lost()

    # -- commands: in the mailbox, one at a time -------------------------------------------------------------------

    async def claim(self) -> bool:
        """Claim the session and its open turns. Returns False if another owner's lease is valid."""
        claim = await self.held.claim()
        if claim is None or self.is_over:
            return False
        if self.life.phase in BUSY:
            self.life.move(Event.CLAIMED)
            return True
        try:
            await self.open_turns.reconcile(claim.running, claim.queued)
        except PlatformError:
            self.life.move(Event.DOUBTED)
            raise
        self.life.move(Event.CLAIMED)  # not before: what fails is retried with pauses, as a part of the claim
        if claim.running is not None:
            self.start(RunnableTurn(claim.running, claim.forgotten, spent=claim.running_for))
        return True

    async def _claim_open(self) -> None:
        if self.life.phase is not Phase.CLAIMING or not self.context.may_start():
            return
        try:
            if await self.claim():
                return
        except PlatformError as error:
            if error.code is not ErrorCode.UNAUTHORIZED:
                raise
            self.lost()  # the user was deleted
            return
        # Without replicas another owner's events are not received: wait for its lease to end.
        if self.replication.is_shared or not await self.compare_with_rows():
            self.life.move(Event.REFUSED)

    async def compare_with_rows(self) -> bool:
        """Reconcile with the rows. Returns True if the user has open turns, here or at another owner."""
        is_busy = self.life.phase in BUSY
        running, queued = await self._store.open_turns(self.user_id)
        if self.held.publishes and is_busy:  # the runner reports its turn's end, which may be newer than these rows
            await self.open_turns.reconcile_waiting(running, queued)
            if running is not None and running.cancel_requested_at is not None:
                self.runner.stop(running)
        elif self.held.publishes:
            await self.open_turns.reconcile(running, queued)
        return bool(running or queued)

    async def _start_waiting(self) -> None:
        """Make the first waiting turn the running one, in the slot that was acquired for it."""
        lease, has_slot = self.lease, True
        try:
            if self.life.phase is not Phase.STARTING or lease is None or not self.context.may_start():
                return
            started = await self._store.start(lease)
            while started is not None and started.turn.status.ended and not self.is_over:
                self.open_turns.ended(started.turn)  # the budget was used up while it waited
                started = await self._store.start(lease) if self.open_turns.view.waiting else None
            if self.is_over or not self.open_turns.view.waiting:
                return
            if started is None:
                self.life.move(Event.DOUBTED)  # what waits here is not what waits in the rows
            else:
                has_slot = False
                self.open_turns.started(started.turn)
                self.start(RunnableTurn(started.turn, started.forgotten))
        finally:
            if has_slot:
                self.context.admission.release()

    def start(self, runnable: RunnableTurn) -> None:
        self._runnable = runnable
        self.life.move(Event.STARTED)

    async def _release(self) -> None:
        if self.life.phase is not Phase.RELEASING or self.lease is None:
            return
        if self.facts().keeps:
            self.held.keep(in_doubt=True)
            self.life.move(Event.KEPT)
        elif await self.held.release(has_connections=bool(self.connections)):
            if self.log.view or self.context.is_draining():  # others may have added turns at this moment
                self.context.logs.broadcast(ControlMessage("unowned", self.user_id))
            self.life.move(Event.RELEASED)
            if not (self.replication.is_available or self.context.is_draining()):
                self._leave(TRY_AGAIN_LATER)  # it can follow no other owner: whoever connects next claims the session
        else:
            self.life.move(Event.KEPT)

    async def _announce(self, event: Announcement) -> None:
        if (self.held.publishes or await self.claim()) and not self.log.has_published(event):
            self._append(event)

    def _append(self, event: Announcement) -> None:
        self.log.append(event.type, event.turn_id, event.attempt, **event.fields)

    async def _refresh(self, ended: str | None) -> None:
        self._is_refreshing = False

        async def compare() -> None:
            if await self.compare_with_rows():
                self.life.move(Event.DOUBTED)
            if ended is not None and self.held.publishes:
                await self.open_turns.publish_end(ended)

        await self._quietly(compare)

    async def _quietly(self, command: Callable[[], Awaitable[Any]]) -> None:
        """For what no caller waits for: a database that is unavailable is logged where it is asked next."""
        try:
            await self._mailbox.do(command, always=True)
        except PlatformError as error:
            log.warning("session.command_failed", user_id=self.user_id, code=error.code)
        except FencedError:
            self.lost()
