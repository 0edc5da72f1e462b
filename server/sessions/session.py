"""The session of one user: an actor that owns the user's turns while this instance holds the lease.

Whatever reads or changes the user's open turns passes through one inbox, so that no answer of the database overwrites
what a later one said. Turns are run one at a time by a worker. Both tasks exist only while there is something to do.
PostgreSQL decides everything that matters; what is held here is a view of it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import structlog

from server.ports import Accepted, FencedError, Forgotten, Lease, NewTurn, TurnEnd
from server.protocol.codes import MOVED, CloseCode, ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, Turn, TurnStatus
from server.sessions.attempt import Attempt
from server.sessions.conclusion import conclude
from server.sessions.inbox import Inbox
from server.sessions.log import EventLog, Subscription
from server.sessions.open_turns import OpenTurns
from server.sessions.patience import patiently
from server.sessions.services import SessionServices
from server.sessions.views import Cancelled, Connection, RunningTurn, Snapshot

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Begun:
    """A turn that is the running one in the database and waits for its attempt here."""

    turn: Turn
    forgotten: tuple[Forgotten, ...]
    taken_over: bool


class Session:
    """See the module. Methods are called from the one event loop."""

    __slots__ = (
        "_attempt",
        "_begun",
        "_has_place",
        "_inbox",
        "_open",
        "_over",
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
        self.log = EventLog(services.attempts.limits, services.attempts.now)
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
        self._unsure = False  # the rows may hold open turns that are not known here
        self._over = False

    # -- what callers ask ----------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Learn what is open for this user, and take it up if nobody else does."""
        self._open.take(*await self._store.open_turns(self.user_id))
        if self._open:
            self.look_again()

    async def send(self, new: NewTurn) -> Accepted:
        return await self._inbox.do(partial(self._accept, partial(self._store.accept, new)))

    async def retry(self, turn_id: str) -> Accepted:
        return await self._inbox.do(partial(self._accept, partial(self._store.retry, self.user_id, turn_id)))

    async def cancel(self, turn_id: str | None) -> Cancelled:
        return await self._inbox.do(partial(self._cancel, turn_id))

    async def while_idle(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` in the inbox, so that nothing is accepted meanwhile. Raises PlatformError(busy)."""

        async def alone() -> T:
            running, waiting = await self._store.open_turns(self.user_id)
            if running is not None or waiting:
                raise PlatformError(ErrorCode.BUSY)
            return await work()

        return await self._inbox.do(alone)

    def look_again(self) -> None:
        """What is open may not be known here: claim the session and see."""
        self._unsure = True
        self.work()

    def work(self) -> None:
        """Make sure somebody runs what is open."""
        if (self._unsure or self._open) and self._worker is None and not self._over and self._services.may_start():
            self._worker = self._services.spawn(self._work())

    def ending(self, turn_id: str) -> "asyncio.Future[Turn]":
        """Resolves when the turn ends here. Shared by all who ask: shield it."""
        return self._open.ending(turn_id)

    def forget_ending(self, turn_id: str) -> None:
        """Nobody needs to wait for this turn."""
        self._open.forget_ending(turn_id)

    @property
    def is_idle(self) -> bool:
        return not (self.connections or self._inbox.is_busy or self._worker or self._open)

    @property
    def is_over(self) -> bool:
        """Lost to another owner: whoever comes next needs a new session."""
        return self._over

    def snapshot(self) -> Snapshot:
        running = self._open.running
        text = self._attempt.reply.text if self._attempt else ""
        shown = None if running is None else RunningTurn(running.id, text, running.attempt, running.user_message)
        return Snapshot(self.log.cursor, shown, tuple(self._open.waiting.values()))

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

    def announce_agent(self, status: AgentStatus, reason: str | None) -> None:
        self.log.append("agent.status", status=status, reason=reason)

    # -- how a session ends --------------------------------------------------------------------------------------

    def disconnect(self, code: CloseCode) -> None:
        for connection in tuple(self.connections):
            connection.close(code)

    def lost(self) -> None:
        """Another owner has the user now, or should: stop everything here, change nothing, send the clients away."""
        if self._over:
            return
        log.warning("session.lost", user_id=self.user_id, fence=self.lease and self.lease.fence)
        self._over, self.lease = True, None
        self._services.forget(self)
        self.disconnect(MOVED)
        if self._worker is not None:
            self._worker.cancel()
        else:
            self._give_place_back()

    async def aclose(self) -> None:
        """Stop the tasks. A running turn stays running in the database, for the next owner to recover."""
        self._over = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self._inbox.aclose()

    @property
    def worker(self) -> "asyncio.Task[None] | None":
        """The task that runs turns now, for whoever waits for it at shutdown."""
        return self._worker

    # -- commands: in the inbox, one at a time -------------------------------------------------------------------

    async def _accept(self, store: Callable[..., Awaitable[Accepted]]) -> Accepted:
        services = self._services
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
            started = has_place and accepted.started and not accepted.duplicate and not self._over
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
            return accepted
        if accepted.lease is not None:
            self.lease = accepted.lease
        if not accepted.duplicate:
            self._take_note(accepted, started)
        elif not (accepted.turn.status.ended or self._open.knows(accepted.turn)):
            self._unsure = True  # begun elsewhere, or before an answer was lost
            await self._look_now()
            self.work()
        return accepted

    @property
    def _nothing_open(self) -> bool:
        return not (self._worker or self._unsure or self._open)

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
            self._begin(_Begun(accepted.turn, accepted.forgotten, taken_over=False))
        else:
            self._open.queued(accepted.turn)
        self.work()

    async def _cancel(self, turn_id: str | None) -> Cancelled:
        try:
            turn = await self._store.request_cancel(self.user_id, turn_id)
        except PlatformError as error:
            self._doubt(error)
            raise
        if turn.status is TurnStatus.RUNNING:
            self._stop(turn)
        elif turn.id in self._open.waiting:
            self._open.ended(turn)
        else:
            return Cancelled(turn, duplicate=True)
        return Cancelled(turn, duplicate=False)

    def _stop(self, turn: Turn) -> None:
        if self._attempt is not None and self._attempt.turn.id == turn.id:
            self._attempt.stop()
        else:
            self._to_stop |= {(turn.id, turn.attempt)}  # it is just being started or taken over
            self.work()

    async def _claim_now(self) -> bool:
        """Take the session and what is open with it. False: another owner's lease is still valid."""
        claim = await self._store.claim(self.user_id, self._services.owner)
        if claim is None or self._over:
            return False
        log.info("session.claimed", user_id=self.user_id, fence=claim.lease.fence, waiting=len(claim.queued))
        self.lease, self._unsure = claim.lease, False
        await self._open.agree(claim.running, claim.queued)
        if claim.running is not None and (self._begun is None or self._begun.turn.id != claim.running.id):
            self._begun = _Begun(claim.running, claim.forgotten, taken_over=True)
        return True

    async def _look_now(self) -> bool:
        """Whether anything is still open for this user, whoever owns it."""
        own = self._attempt is not None or self._begun is not None
        running, queued = await self._store.open_turns(self.user_id)
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
        if self.lease is None or not self._open.waiting:
            return
        started = await self._store.start(self.lease)
        if self._over:
            return
        if started is None:
            self._unsure = True  # what waits here is not what waits in the rows
        else:
            self._begin(_Begun(started.turn, started.forgotten, taken_over=False))

    # -- the worker: one turn at a time --------------------------------------------------------------------------

    async def _work(self) -> None:
        try:
            while self._services.may_start():
                if (self._unsure or self.lease is None) and not await self._claim():
                    return
                begun = self._begun or await self._start_next()
                if begun is not None:
                    await self._run(begun)
                elif not self._unsure:
                    return
        except FencedError:
            self._worker = None
            self.lost()
        except Exception:
            log.exception("session.worker_failed", user_id=self.user_id)
            self._worker = None
            self.lost()  # what is open is in the database: whoever claims the session next goes on with it
        finally:
            self._worker = self._begun = None
            self._give_place_back()
            self.last_used = self._services.clock()

    async def _claim(self) -> bool:
        """Take the session over, waiting for another owner's lease to end. False: nothing is open any more."""
        while self._services.may_start():
            if await self._ask(self._claim_now):
                return True
            await asyncio.sleep(self._services.claim_pause)
            if not await self._ask(self._look_now):
                return False
        return False

    async def _start_next(self) -> _Begun | None:
        if not self._open.waiting:
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
        return await patiently(partial(self._inbox.do, command), self.user_id)

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
            taken_over=begun.taken_over,
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
