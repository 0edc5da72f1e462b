"""What an instance does as the owner of a session, or to become it: claim, compare with the rows, start, run, release.

Methods that wait are commands of the session's mailbox or parts of one: one at a time. What the last owner stored and
did not publish is published by the next.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog

from server.ports import Claim, ControlMessage, FencedError, Lease, LogMark
from server.protocol.codes import MOVED, TRY_AGAIN_LATER, CloseCode, ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Turn
from server.sessions.context import SessionContext
from server.sessions.events.snapshot import Connection, View
from server.sessions.life_cycle import LifeCycle
from server.sessions.open_turns import OpenTurns
from server.sessions.state import BUSY, Effect, Event, Facts, Phase
from server.sessions.turn_runner import RunnableTurn, TurnRunner

log = structlog.get_logger(__name__)


class Host(Protocol):
    """The session: who uses it, and what becomes of them at its end."""

    connections: list[Connection]

    @property
    def is_wanted(self) -> bool:
        """Whether it has connections, or was opened just now for one."""
        ...

    def session_over(self, code: CloseCode) -> None:
        """It is lost or closed on this instance: close the connections."""
        ...


class Ownership:
    """`lease` is None unless this instance is the owner. `log` and `replication` are those of the session."""

    __slots__ = (
        "_context",
        "_host",
        "_is_closed",
        "_is_releasing",
        "_store",
        "lease",
        "life",
        "log",
        "open_turns",
        "replication",
        "runner",
        "user_id",
    )

    def __init__(self, user_id: str, context: SessionContext, host: Host) -> None:
        self.user_id = user_id
        self.lease: Lease | None = None
        self.log, self.replication = context.logs.open(user_id, self.lost)
        self._context = context
        self._host = host
        self._store = context.attempts.store
        self._is_releasing = False  # asked for, and not answered: until then nothing is appended
        self._is_closed = False  # a lease that is granted while the instance ends is still handed over
        self.life = LifeCycle(self, context)
        self.open_turns = OpenTurns(user_id, self._store, self.log)
        self.runner = TurnRunner(context, self.log, self)

    # -- where it stands -----------------------------------------------------------------------------------------

    @property
    def publishes(self) -> bool:
        """Whether this instance appends to the log. Of a shared log only the owner does."""
        return not self.replication.is_shared or (self.lease is not None and not self._is_releasing)

    @property
    def view(self) -> View:
        """What is open, as far as this instance knows."""
        return self.open_turns.view if self.publishes else self.log.view

    @property
    def is_over(self) -> bool:
        """Lost to another owner, or closed: the next caller needs a new session."""
        return self.life.phase is Phase.LOST

    # -- what the life cycle needs -------------------------------------------------------------------------------

    @property
    def commands(self) -> Mapping[Effect, Callable[[], Awaitable[None]]]:
        return {
            Effect.CLAIM: self._claim_open,
            Effect.ACQUIRE_SLOT: self._start_waiting,
            Effect.RELEASE: self._release,
        }

    def facts(self) -> Facts:
        context, view = self._context, self.open_turns.view
        draining = context.is_draining()
        return Facts(
            has_lease=self.lease is not None,
            waits=bool(view.waiting),
            shows_running=view.running is not None,
            may_start=context.may_start(),
            draining=draining,
            keeps_lease=not self.replication.is_available and self._host.is_wanted and not draining,
        )

    async def failed(self, error: Exception) -> None:
        """Hold the lease during a pause, so that no other instance fails in the same way meanwhile. The open turns are
        in the database: the next owner goes on with them."""
        if not isinstance(error, FencedError) and not self.is_over:
            rest = self._context.crashes.failed(self.user_id)
            log.error("session.worker_failed", user_id=self.user_id, retry_in=rest, exc_info=error)
            await asyncio.sleep(rest)
        self.lost()

    # -- the lease -----------------------------------------------------------------------------------------------

    async def claim(self) -> bool:
        """Claim or renew the lease, and run what is open. Returns False if another owner's lease is valid.

        Raises FencedError if ours was replaced by it.
        """
        claim = await self._store.claim(self.user_id, self._context.owner)
        self.check(None if claim is None else claim.lease)
        if claim is None:
            return False
        log.info("session.claimed", user_id=self.user_id, fence=claim.lease.fence, waiting=len(claim.queued))
        await self.granted(claim.lease, claim.mark)
        if self.is_over:
            return False
        if self.life.phase not in BUSY:  # else the runner goes on, and the rows are compared after it
            await self._go_on(claim)
        return True

    async def _go_on(self, claim: Claim) -> None:
        try:
            await self.open_turns.reconcile(claim.running, claim.queued)
        except PlatformError:
            self.life.move(Event.OUTDATED)
            raise
        self.life.move(Event.CLAIMED)  # not before: what fails is retried with pauses, as a part of the claim
        if claim.running is not None:
            age = claim.running_for or 0.0
            self.start(RunnableTurn(claim.running, claim.forgotten, is_taken_over=True, age=age))

    def check(self, lease: Lease | None) -> None:
        """Raise FencedError if an answer says that another owner holds the lease that was ours."""
        if self.lease is not None and (lease is None or lease.fence > self.lease.fence + 1):
            raise FencedError(f"another owner has the session of {self.user_id}")

    async def granted(self, lease: Lease, mark: LogMark | None) -> bool:
        """Append to the log from where its last owner left it. Raises FencedError.

        Returns True if another instance may have been the owner before.
        """
        if self._is_closed:
            return False
        if lease == self.lease:
            self._keep(may_be_released=True)
            return False
        self.check(lease)
        is_renewed = self.lease is not None and not self._is_releasing
        await self.replication.take(lease, mark)
        if self._is_closed:
            return False
        self.lease, self._is_releasing = lease, False
        if self.replication.is_shared and not is_renewed:
            self.open_turns.continue_from_log()
        return not is_renewed

    async def _release(self) -> None:
        if self.life.phase is not Phase.RELEASING or self.lease is None:
            return
        if self.facts().keeps_lease:
            self._keep(may_be_released=True)
            self.life.move(Event.KEPT)
        elif await self._is_released(self.lease):
            if self.log.view or self._context.is_draining():  # others may have added turns at this moment
                self._context.logs.broadcast(ControlMessage("unowned", self.user_id))
            self.life.move(Event.RELEASED)
            if not (self.replication.is_available or self._context.is_draining()):
                self.leave(TRY_AGAIN_LATER)  # it can follow no other owner: the next connection claims the session
        else:
            self.life.move(Event.KEPT)

    async def _is_released(self, lease: Lease) -> bool:
        """Release the lease; while draining also if turns are open, for others to go on.

        Returns False if it is kept: turns are open, or connections here were given what the replica lacks, which the
        next owner would publish again. Raises PlatformError: it may have been released, and this is to be repeated.
        """
        is_repeated, draining = self._is_releasing, self._context.is_draining()
        mark, is_level = await self.replication.prepare_release()
        self._is_releasing = True  # and nothing is appended from here on
        must_wait = self._host.connections and not is_level and not draining
        if not must_wait and await self._store.release(lease, mark, unless_open=not draining):
            self.lease, self._is_releasing = None, False
            return True
        self._keep(may_be_released=is_repeated)
        return False

    def _keep(self, *, may_be_released: bool) -> None:
        """Append again, if a release was asked for. `may_be_released`: an earlier request was carried out in between,
        or will be."""
        if self._is_releasing and self.lease is not None:
            self._is_releasing = False
            self.replication.kept(self.lease, may_be_released=may_be_released)

    # -- the turns -----------------------------------------------------------------------------------------------

    def start(self, runnable: RunnableTurn) -> None:
        """Run a turn that is the running one in the database."""
        if self.life.move(Event.STARTED):
            self.runner.start(runnable)

    async def reconcile(self) -> bool:
        """Publish what other instances changed. Returns True if the user has open turns, here or at another owner."""
        is_busy = self.life.phase in BUSY
        running, queued = await self._store.open_turns(self.user_id)
        if self.publishes and is_busy:  # the runner reports its turn's end, which may be newer than these rows
            await self.open_turns.reconcile_waiting(running, queued)
            if running is not None and running.cancel_requested_at is not None:
                self.runner.stop(running)
        elif self.publishes:
            await self.open_turns.reconcile(running, queued)
        return bool(running or queued)

    async def _claim_open(self) -> None:
        if self.life.phase is not Phase.CLAIMING or not self._context.may_start():
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
        if self.replication.is_shared or not await self.reconcile():
            self.life.move(Event.REFUSED)

    async def _start_waiting(self) -> None:
        """Make the first waiting turn the running one, in the slot that was acquired for it."""
        lease, has_slot = self.lease, True
        try:
            if self.life.phase is not Phase.STARTING or lease is None or not self._context.may_start():
                return
            started = await self._store.start(lease)
            while started is not None and started.turn.status.ended and not self.is_over:
                self.open_turns.publish_end(started.turn)  # the budget was used up while it waited
                started = await self._store.start(lease) if self.open_turns.view.waiting else None
            if self.is_over or not self.open_turns.view.waiting:
                return
            if started is None:
                self.life.move(Event.OUTDATED)  # what waits here is not what waits in the rows
            else:
                has_slot = False
                self.open_turns.publish_started(started.turn)
                self.start(RunnableTurn(started.turn, started.forgotten))
        finally:
            if has_slot:
                self._context.admission.release()

    def attempt_ended(self) -> None:
        self.life.move(Event.ATTEMPT_ENDED)

    async def end_stored(self, turn: Turn) -> None:
        async def publish() -> None:
            self.open_turns.publish_end(turn)
            self.life.move(Event.END_STORED)

        await self.life.mailbox.do(publish, always=True)

    # -- the end -------------------------------------------------------------------------------------------------

    def lost(self) -> None:
        """Another owner has the session, or may have, or it cannot go on here: stop everything, change nothing, send
        its connections away."""
        if not self.is_over:
            log.warning("session.lost", user_id=self.user_id, fence=self.lease and self.lease.fence)
            self.life.move(Event.FENCED)
            self.leave(MOVED)

    def leave(self, code: CloseCode) -> None:
        """Stop at once. The lease is another owner's, or is left to run out."""
        self.life.move(Event.CLOSED)
        self.lease, self._is_closed = None, True
        self._host.session_over(code)
        self.replication.close()
        self.runner.abandon()

    async def aclose(self) -> tuple[Lease, LogMark] | None:
        """Stop the tasks. A running turn stays running in the database, for the next owner: the lease to release, and
        where the log stops."""
        self.life.move(Event.CLOSED)
        await self.runner.aclose()
        await self.life.mailbox.aclose()
        lease, (mark, _) = self.lease, await self.replication.prepare_release()
        self.lease, self._is_closed = None, True
        self.replication.close()
        return None if lease is None else (lease, mark)
