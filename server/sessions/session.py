"""The session of one user: an actor that owns the user's turns while this instance holds the lease.

Whatever reads or changes the user's open turns passes through one inbox, so that no answer of the database overwrites
what a later one said. Turns are run one at a time by a worker. Both tasks exist only while there is something to do,
and the lease is held only while turns are open: whichever instance takes the next message runs it.
PostgreSQL decides everything that matters; what is held here is a view of it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import structlog

from server.ports import Accepted, FencedError, Forgotten, Lease, NewTurn, Notice, OwnedWork, RelayAwayError, TurnEnd
from server.protocol.codes import MOVED, TRY_AGAIN_LATER, CloseCode, ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, Turn, TurnStatus
from server.sessions.attempt import Attempt
from server.sessions.conclusion import conclude
from server.sessions.inbox import Inbox
from server.sessions.log import Subscription
from server.sessions.open_turns import OpenTurns
from server.sessions.patience import patiently
from server.sessions.services import SessionServices
from server.sessions.views import Cancelled, Connection, Snapshot, View

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Begun:
    """A turn that is the running one in the database and waits for its attempt here.

    `spent`: seconds since it was started, where it was taken over from somebody else.
    """

    turn: Turn
    forgotten: tuple[Forgotten, ...]
    spent: float | None = None


class Session:
    """See the module. Methods are called from the one event loop."""

    __slots__ = (
        "_attempt",
        "_begun",
        "_has_place",
        "_inbox",
        "_looking",
        "_open",
        "_over",
        "_resting",
        "_services",
        "_store",
        "_to_stop",
        "_unsure",
        "_worker",
        "connections",
        "last_used",
        "lease",
        "log",
        "user_id",
    )

    def __init__(self, user_id: str, services: SessionServices) -> None:
        self.user_id = user_id
        self.log = services.placement.log(user_id)
        self.log.on_fenced = self.lost
        self.connections: list[Connection] = []
        self.lease: Lease | None = None
        self.last_used = services.clock()
        self._services = services
        self._store = services.attempts.store
        self._inbox = Inbox(services.spawn)
        self._worker: asyncio.Task[None] | None = None
        self._open = OpenTurns(user_id, self._store, self.log)
        self._attempt: Attempt | None = None
        self._begun: _Begun | None = None
        self._has_place = False
        self._to_stop: frozenset[tuple[str, int]] = frozenset()
        self._unsure = False  # the rows may hold open turns that nobody runs
        self._looking = False
        self._resting = False  # the worker has nothing to do but to give the lease back
        self._over = False

    # -- what callers ask ----------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Learn what is open for this user, and take it up if nobody else does.

        Raises PlatformError(events_unavailable) where another instance owns the session and cannot be heard.
        """
        try:
            await self.log.open()
        except RelayAwayError as away:
            if not await self._inbox.do(self._claim_now):
                self.log.close()
                raise PlatformError(ErrorCode.EVENTS_UNAVAILABLE, retry_after=2.0) from away
        if self.log.is_fresh and self.lease is None:
            self._open.take(*await self._store.open_turns(self.user_id))
        if self.view:
            self.look_again()

    async def send(self, new: NewTurn) -> Accepted:
        return await self._inbox.do(partial(self._accept, partial(self._store.accept, new)))

    async def retry(self, turn_id: str) -> Accepted:
        return await self._inbox.do(partial(self._accept, partial(self._store.retry, self.user_id, turn_id)))

    async def cancel(self, turn_id: str | None) -> Cancelled:
        return await self._inbox.do(partial(self._cancel, turn_id))

    async def while_idle(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` as the owner of a user who has nothing open; nothing begins meanwhile. Raises PlatformError(busy)."""

        async def alone() -> T:
            if self._attempt is not None or not await self._claim_now() or self._open:
                self.work()
                raise PlatformError(ErrorCode.BUSY)
            return await work()

        try:
            return await self._inbox.do(alone)
        finally:
            self.work()

    def look_again(self) -> None:
        """What is open may belong to nobody: claim the session and see."""
        self._unsure = True
        self.work()

    def look(self) -> None:
        """Something was changed in the rows by another instance."""
        if self.lease is not None and not self._looking and not self._over:
            self._looking = True
            self._services.spawn(self._look())

    def check(self, work: OwnedWork) -> None:
        """Look at the rows if they say anything that is not known here."""
        unheard = work.cancelled is not None and not self._is_stopping(work.cancelled)
        if unheard or work.waiting != self.view.waiting_ids:
            self.look()

    def work(self) -> None:
        """Make sure somebody runs what is open, and that a lease without need is given back."""
        something = self._unsure or (self.lease is not None and (self._open or not self.log.is_detached))
        if something and self._worker is None and not self._over and self._services.may_start():
            self._worker = self._services.spawn(self._work())

    @property
    def view(self) -> View:
        """What is open, as far as this instance knows."""
        return self._open.view if self._tells else self.log.view

    @property
    def _tells(self) -> bool:
        """Whether this instance tells the connections what happens. Of a shared log only the owner does."""
        return self.lease is not None or not self.log.is_shared

    @property
    def is_idle(self) -> bool:
        return not (self.connections or self._inbox.is_busy or self._worker or self.lease)

    @property
    def is_resting(self) -> bool:
        """Whether nothing is being done here that could need or bring a lease."""
        return not (self._inbox.is_busy or self._worker)

    @property
    def is_followed(self) -> bool:
        """Whether another instance may be the owner, whose events are read here."""
        return self.log.is_shared and self.lease is None

    @property
    def is_over(self) -> bool:
        """Lost to another owner: whoever comes next needs a new session."""
        return self._over

    def snapshot(self) -> Snapshot:
        running = self.log.view.running
        text = "" if running is None else self.log.reply(running.turn_id, running.attempt)
        return Snapshot(self.log.cursor, running, text, self.log.view.waiting)

    def attach(self, connection: Connection, after: EventCursor | None) -> Subscription:
        """Let a connection read the log from `after` (or from now); no await between this and `snapshot`."""
        self.connections.append(connection)
        self.last_used = self._services.clock()
        return self.log.subscribe(after, connection.wake)

    def detach(self, connection: Connection, subscription: Subscription) -> None:
        subscription.close()
        if connection in self.connections:
            self.connections.remove(connection)
        self.last_used = self._services.clock()

    def tell_agent(self, status: AgentStatus, reason: str | None) -> None:
        """Tell the connections where the user's agent stands. Every instance is asked to; the owner does."""
        if not self.log.is_shared:
            self.log.append("agent.status", status=status, reason=reason)
        elif self.lease is not None or self.connections:
            self._services.spawn(self._inbox_quietly(partial(self._tell_agent, status, reason)))

    # -- how a session ends --------------------------------------------------------------------------------------

    def disconnect(self, code: CloseCode) -> None:
        for connection in tuple(self.connections):
            connection.close(code)

    def lost(self) -> None:
        """Another owner has the user now, or should: stop everything here, change nothing, send the clients away."""
        if self._over:
            return
        log.warning("session.lost", user_id=self.user_id, fence=self.lease and self.lease.fence)
        self._retire(MOVED)
        if self._worker is not None:
            self._worker.cancel()
        else:
            self._give_place_back()

    async def serve_alone(self) -> None:
        """The other instances cannot be heard. Serve the connections as the owner, or send them away for now."""
        if self.lease is None and not self._over:
            owns = bool(self.connections) and await self._inbox.do(self._claim_now)
            if not owns and self.lease is None:
                self._retire(TRY_AGAIN_LATER)

    def _retire(self, code: CloseCode) -> None:
        self._over, self.lease = True, None
        self._services.forget(self)
        self.disconnect(code)
        self.log.close()

    async def aclose(self) -> None:
        """Stop the tasks. A running turn stays running in the database, for the next owner to recover."""
        self._over = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self._inbox.aclose()
        await self.log.give_back()
        self.log.close()

    @property
    def worker(self) -> "asyncio.Task[None] | None":
        """The task that runs turns now, for whoever waits for it at shutdown."""
        return self._worker

    # -- commands: in the inbox, one at a time -------------------------------------------------------------------

    async def _accept(self, store: Callable[..., Awaitable[Accepted]]) -> Accepted:
        services = self._services
        if not self._tells and self.view:
            await self._claim_now()  # whoever runs it may be gone: then it is for us to tell how it ended
        overloaded = services.admission.overloaded
        has_place = self._nothing_open and services.may_start() and services.admission.try_acquire()
        started = False
        try:
            accepted = await store(
                services.owner,
                start=has_place,
                max_waiting=services.attempts.limits.waiting_turns_per_user,
                overloaded=overloaded,
            )
            if accepted.lease is not None and not self._over:
                await self._own(accepted.lease, but_for=accepted.turn.id)
            started = has_place and accepted.started and not accepted.duplicate and not self._over
        except FencedError as error:
            self.lost()
            services.look_after(self.user_id)
            raise PlatformError(ErrorCode.EVENTS_UNAVAILABLE, retry_after=1.0) from error
        except PlatformError as error:
            self._doubt(error)
            if error.code is ErrorCode.OVERLOADED:
                raise services.admission.refusal() from error
            raise
        finally:
            if has_place and not started:
                services.admission.release()
        self.last_used = services.clock()
        if self._over:
            services.look_after(self.user_id)  # lost in the meantime: the turn is for the session that follows
        elif not self._tells:
            services.placement.announce(Notice("look", self.user_id))
        elif not accepted.duplicate:
            self._take_note(accepted, started)
        elif not (accepted.turn.status.ended or self._open.knows(accepted.turn)):
            self._unsure = True  # begun elsewhere, or before an answer was lost
            await self._look_now()
        self.work()
        return accepted

    @property
    def _nothing_open(self) -> bool:
        return not ((self._worker and not self._resting) or self._unsure or self.view)

    def _doubt(self, error: PlatformError) -> None:
        """The database did not answer: what it was asked to do may be done all the same."""
        if error.code is ErrorCode.SUPABASE_UNAVAILABLE:
            self.look_again()

    def _take_note(self, accepted: Accepted, started: bool) -> None:
        for turn in accepted.cancelled:
            self._open.ended(turn)
        if accepted.interrupted is not None:
            self._stop(accepted.interrupted)
        if started:
            self._has_place = True
            self._begin(_Begun(accepted.turn, accepted.forgotten))
        else:
            self._open.queued(accepted.turn)

    async def _cancel(self, turn_id: str | None) -> Cancelled:
        try:
            turn = await self._store.request_cancel(self.user_id, turn_id)
        except PlatformError as error:
            self._doubt(error)
            raise
        was_open = turn.status is TurnStatus.RUNNING or turn.id in self.view.waiting_ids
        if was_open and not self._tells:
            self._services.placement.announce(Notice("look", self.user_id))
            if turn.status.ended:
                self.look_again()  # should nobody own it any more, it is for us to tell
        elif turn.status is TurnStatus.RUNNING:
            self._stop(turn)
        elif was_open:
            self._open.ended(turn)
        return Cancelled(turn, duplicate=not was_open)

    def _stop(self, turn: Turn) -> None:
        if self._attempt is not None and self._attempt.turn.id == turn.id:
            self._attempt.stop()
        else:
            self._to_stop |= {(turn.id, turn.attempt)}  # it is just being started or taken over
            self.work()

    def _is_stopping(self, turn_id: str) -> bool:
        if self._attempt is not None and self._attempt.turn.id == turn_id:
            return self._attempt.is_stopping
        return any(turn_id == stopped for stopped, _ in self._to_stop)

    async def _tell_agent(self, status: AgentStatus, reason: str | None) -> None:
        if self.lease is not None or await self._claim_now():
            self.log.append("agent.status", status=status, reason=reason)
            self.work()

    async def _own(self, lease: Lease, but_for: str | None = None) -> None:
        """The lease is ours: go on with the log where its last owner left it. Raises FencedError.

        Given a turn that is about to be told of, what the last owner did not tell of the others is told before it.
        """
        if lease == self.lease:
            return
        owned = self.lease is not None
        await self.log.take(lease)
        if self._over:
            return
        self.lease = lease
        if self.log.is_shared and not owned:
            self._open.continue_from_log()
            if self._open and but_for is not None:
                running, queued = await self._store.open_turns(self.user_id)
                others = tuple(turn for turn in queued if turn.id != but_for)
                await self._open.agree(running if running and running.id != but_for else None, others)

    async def _claim_now(self) -> bool:
        """Take the session and what is open with it. False: another owner's lease is still valid."""
        claim = await self._store.claim(self.user_id, self._services.owner)
        if claim is None or self._over:
            return False
        log.info("session.claimed", user_id=self.user_id, fence=claim.lease.fence, waiting=len(claim.queued))
        await self._own(claim.lease)
        self._unsure = False
        if self._attempt is not None:
            return True
        await self._open.agree(claim.running, claim.queued)
        if claim.running is not None and (self._begun is None or self._begun.turn.id != claim.running.id):
            self._begun = _Begun(claim.running, claim.forgotten, spent=claim.running_for)
        return True

    async def _look(self) -> None:
        self._looking = False
        await self._inbox_quietly(self._look_now)
        self.work()

    async def _look_now(self) -> bool:
        """Whether anything is still open for this user, whoever owns it."""
        own = self._attempt is not None or self._begun is not None
        running, queued = await self._store.open_turns(self.user_id)
        if not self._tells:
            return bool(running or queued)
        if own:  # the worker tells of its turn, whose end may be newer than these rows
            await self._open.agree_on_waiting(running, queued)
            if running is not None and running.cancel_requested_at is not None:
                self._stop(running)
        else:
            await self._open.agree(running, queued)
        self._unsure = bool(running or queued)
        return self._unsure

    async def _start_now(self) -> None:
        """Make the first waiting turn the running one."""
        if self.lease is None or not self.view.waiting:
            return
        started = await self._store.start(self.lease)
        if self._over:
            return
        if started is None:
            self._unsure = True  # what waits here is not what waits in the rows
        else:
            self._begin(_Begun(started.turn, started.forgotten))

    async def _rest_now(self) -> bool:
        """Give the lease back, unless there is more to do; while draining also then, for others to go on."""
        draining = self._services.is_draining()
        if self.lease is None or self._over or self.log.is_detached:
            return True
        if (self._open or self._unsure) and not draining:
            # There is more to do; or what is shown as open is not, and the rows tell what became of it.
            self._unsure = self._unsure or not (self._begun or self.view.waiting)
            return False
        await self.log.give_back()
        if await self._store.release(self.lease, unless_open=not draining):
            self.lease = None
            if self.log.view:
                self._services.placement.announce(Notice("free", self.user_id))
            return True
        await self.log.take(self.lease)
        self._unsure = True
        return False

    async def _inbox_quietly(self, command: Callable[[], Awaitable[Any]]) -> None:
        """For what nobody waits for: the database being away is noted where it is asked next."""
        try:
            await self._inbox.do(command, always=True)
        except PlatformError as error:
            log.warning("session.command_failed", user_id=self.user_id, code=error.code)
        except FencedError:
            self.lost()

    # -- the worker: one turn at a time --------------------------------------------------------------------------

    async def _work(self) -> None:
        try:
            while True:
                await self._run_what_is_open()
                self._resting = True
                rested = await self._ask(self._rest_now)
                self._resting = False
                if rested or not self._services.may_start():
                    return
        except FencedError:
            self._worker = None
            self.lost()
        except Exception:
            if not self._over:
                log.exception("session.worker_failed", user_id=self.user_id)
            self._worker = None
            self.lost()  # what is open is in the database: whoever claims the session next goes on with it
        finally:
            self._worker = self._begun = None
            self._resting = False
            self._give_place_back()
            self.last_used = self._services.clock()

    async def _run_what_is_open(self) -> None:
        while self._services.may_start():
            if (self._unsure or (self.lease is None and self._begun is None)) and not await self._claim():
                return
            begun = self._begun or await self._start_next()
            if begun is not None:
                await self._run(begun)
            elif not self._unsure:
                return

    async def _claim(self) -> bool:
        """Take the session over. False: nothing is open any more, or somebody else runs it and tells of it.

        Where nobody else can be heard, wait for their lease to end.
        """
        while self._services.may_start():
            if await self._ask(self._claim_now):
                return True
            if self.log.is_shared:
                self._unsure = False
                return False
            await asyncio.sleep(self._services.claim_pause)
            if not await self._ask(self._look_now):
                return False
        return False

    async def _start_next(self) -> _Begun | None:
        if not self.view.waiting:
            return None
        await self._services.admission.acquire()
        self._has_place = True
        try:
            if self._services.may_start():
                await self._ask(self._start_now)
        finally:
            if self._begun is None:
                self._give_place_back()
        return self._begun

    async def _ask(self, command: Callable[[], Awaitable[Any]]) -> Any:
        """Have a command carried out, however long the database is away."""
        return await patiently(partial(self._inbox.do, command, always=True), self.user_id)

    def _give_place_back(self, seconds: float | None = None) -> None:
        if self._has_place:
            self._has_place = False
            self._services.admission.release(seconds)

    def _begin(self, begun: _Begun) -> None:
        self._begun = begun
        self._open.started(begun.turn)

    async def _run(self, begun: _Begun) -> None:
        turn, began = begun.turn, self._services.clock()
        assert self.lease is not None
        attempt = Attempt(
            self._services.attempts,
            self.log,
            self.lease,
            turn,
            begun.forgotten,
            may_send=self._services.is_current,
            spent=begun.spent,
        )
        self._attempt, self._begun = attempt, None
        if turn.cancel_requested_at is not None or (turn.id, turn.attempt) in self._to_stop:
            attempt.stop()
        try:
            stored = await conclude(attempt, self._finish)
        finally:
            self._give_place_back(self._services.clock() - began)
        self._attempt = None
        self._to_stop -= {(turn.id, turn.attempt)}
        self._open.ended(stored)
        log.info(
            "turn.ended",
            user_id=self.user_id,
            turn_id=turn.id,
            attempt=turn.attempt,
            status=stored.status,
            error=stored.error and stored.error.code,
            run_id=attempt.reply.run_id,
            duration_ms=round((self._services.clock() - began) * 1000),
        )

    async def _finish(self, end: TurnEnd) -> Turn:
        assert self.lease is not None  # the newest: it may have run out and been taken again while the turn ran
        return await self._store.finish(self.lease, end)
