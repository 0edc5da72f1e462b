"""Owning a user's turns: the lease, and agreeing with the rows and with the log on what is open.

An owner tells the connections of every instance what happens; whoever becomes one first tells what the last one
did not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from server.ports import ControlMessage, FencedError, Forgotten, Lease, LogMark
from server.protocol.shapes import Turn
from server.sessions.events.log import EventLog
from server.sessions.events.replication import Replication
from server.sessions.open_turns import OpenTurns
from server.sessions.services import SessionServices
from server.sessions.views import View

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """A turn that is the running one in the database and waits for its attempt here.

    `spent`: seconds since it was started, where it was taken over from another owner.
    """

    turn: Turn
    forgotten: tuple[Forgotten, ...]
    spent: float | None = None


class Runner(Protocol):
    """Who runs the turns that are owned here; `Worker` is one."""

    begun: Begun | None

    @property
    def has_turn(self) -> bool: ...

    def stop(self, turn: Turn) -> None: ...


class Ownership:
    """Its methods that wait are commands of the session's inbox: one at a time."""

    __slots__ = (
        "_events",
        "_has_connections",
        "_is_releasing",
        "_replication",
        "_runner",
        "_services",
        "_store",
        "is_over",
        "lease",
        "open",
        "unsure",
        "user_id",
    )

    def __init__(
        self,
        user_id: str,
        services: SessionServices,
        events: EventLog,
        replication: Replication,
        has_connections: Callable[[], bool],
    ) -> None:
        self.user_id = user_id
        self.lease: Lease | None = None
        self.open = OpenTurns(user_id, services.attempts.store, events)
        self.unsure = False  # the rows may hold open turns that nobody runs
        self.is_over = False  # lost for good: whoever comes next needs a new session
        self._services = services
        self._store = services.attempts.store
        self._events = events
        self._replication = replication
        self._has_connections = has_connections
        self._is_releasing = False  # asked for, and not answered: until then nothing is appended
        self._runner: Runner | None = None

    def employ(self, runner: Runner) -> None:
        """Set once, before anything else."""
        self._runner = runner

    @property
    def runner(self) -> Runner:
        assert self._runner is not None
        return self._runner

    @property
    def is_shared(self) -> bool:
        """Whether other instances read the log."""
        return self._replication.is_shared

    @property
    def tells(self) -> bool:
        """Whether this instance tells the connections what happens. Of a shared log only the owner does."""
        return not self._replication.is_shared or (self.lease is not None and not self._is_releasing)

    @property
    def is_kept(self) -> bool:
        """Whether the lease is kept though nothing is open: other instances cannot be heard, and this one has
        connections of the user to serve."""
        return not self._replication.is_available and self._has_connections() and not self._services.is_draining()

    @property
    def view(self) -> View:
        """What is open, as far as this instance knows."""
        return self.open.view if self.tells else self._events.view

    async def gain(self, lease: Lease, mark: LogMark | None, *, but_for: str | None = None) -> bool:
        """The lease is ours: go on with the log where its last owner left it. False: it was ours already.

        Given a turn that is about to be told of, what the last owner did not tell of the others is told before it.
        Raises FencedError.
        """
        if self.is_over:
            return False
        if lease == self.lease:
            self._keep(lease, in_doubt=True)
            return False
        owned = self.lease is not None and not self._is_releasing
        if self.lease is not None and owned and lease.fence != self.lease.fence + 1:
            raise FencedError(f"others have owned the session of {self.user_id}")
        await self._replication.take(lease, mark)
        if self.is_over:
            return False
        self.lease, self._is_releasing = lease, False
        if self._replication.is_shared and not owned:
            self.open.continue_from_log()
            if self.open and but_for is not None:
                running, queued = await self._store.open_turns(self.user_id)
                others = tuple(turn for turn in queued if turn.id != but_for)
                await self.open.agree(running if running and running.id != but_for else None, others)
        return not owned

    def check_acceptance(self, lease: Lease | None) -> None:
        """Raise FencedError if an acceptance says that another owner holds the lease that was ours."""
        if lease is None and self.lease is not None:
            raise FencedError(self.user_id)

    async def claim(self) -> bool:
        """Take the session and what is open with it. False: another owner's lease is still valid."""
        claim = await self._store.claim(self.user_id, self._services.owner)
        if claim is None or self.is_over:
            return False
        log.info("session.claimed", user_id=self.user_id, fence=claim.lease.fence, waiting=len(claim.queued))
        await self.gain(claim.lease, claim.mark)
        self.unsure = False
        runner = self.runner
        if not runner.has_turn:
            await self.open.agree(claim.running, claim.queued)
            if claim.running is not None:
                runner.begun = Begun(claim.running, claim.forgotten, spent=claim.running_for)
        return True

    async def look(self) -> bool:
        """Whether anything is still open for this user, whoever owns it."""
        has_turn = self.runner.has_turn
        running, queued = await self._store.open_turns(self.user_id)
        if not self.tells:
            return bool(running or queued)
        if has_turn:  # the worker tells of its turn, whose end may be newer than these rows
            await self.open.agree_on_waiting(running, queued)
            if running is not None and running.cancel_requested_at is not None:
                self.runner.stop(running)
        else:
            await self.open.agree(running, queued)
        self.unsure = bool(running or queued)
        return self.unsure

    async def learn_end(self, turn_id: str) -> None:
        """Tell the end of a turn that another instance ended, perhaps before we knew that it was there."""
        stored = await self._store.turn(self.user_id, turn_id)
        if stored is not None and stored.status.ended and self.tells and not self.open.has_ended(stored):
            self.open.ended(stored)

    async def start(self) -> None:
        """Make the first waiting turn the running one."""
        if self.lease is None or not self.view.waiting:
            return
        started = await self._store.start(self.lease)
        if self.is_over:
            return
        if started is None:
            self.unsure = True  # what waits here is not what waits in the rows
        elif started.turn.status.ended:
            self.open.ended(started.turn)  # the budget was used up while it waited
        else:
            self.begin(Begun(started.turn, started.forgotten))

    def begin(self, begun: Begun) -> None:
        self.runner.begun = begun
        self.open.started(begun.turn)

    async def rest(self) -> bool:
        """Give the lease back, unless there is more to do; while draining also then, for others to go on.

        Kept too while the others cannot be heard. False: there is more to do.
        """
        draining = self._services.is_draining()
        lease = self.lease
        if lease is None or self.is_over:
            return True
        if self.is_kept:
            return not self._is_releasing or await self.claim()
        if (self.open or self.unsure) and not draining:
            # There is more to do; or what is shown as open is not, and the rows tell what became of it.
            self.unsure = self.unsure or not (self.runner.has_turn or self.view.waiting)
            return False
        in_doubt = self._is_releasing
        mark, is_level = await self.prepare_release()
        if not (is_level or draining) and self._has_connections():
            # The next owner would publish again what the replica lacks and the connections here were given.
            self._keep(lease, in_doubt=in_doubt)
            return True
        if await self._store.release(lease, mark, unless_open=not draining):
            self.lease, self._is_releasing = None, False
            if self._events.view:
                self._services.logs.broadcast(ControlMessage("unowned", self.user_id))
            return True
        self._keep(lease, in_doubt=in_doubt)
        self.unsure = True
        return False

    async def prepare_release(self) -> tuple[LogMark, bool]:
        """Append nothing from here on; where the log stops, and whether the replica has it all."""
        prepared = await self._replication.prepare_release()
        self._is_releasing = True
        return prepared

    def _keep(self, lease: Lease, *, in_doubt: bool) -> None:
        """The lease was not released. `in_doubt`: an earlier request may be carried out later, or was, in between."""
        if self._is_releasing and not self.is_over:
            self._is_releasing = False
            self._replication.kept(lease, in_doubt=in_doubt)
