"""The session of one user: an actor that owns the user's turns while this instance holds the lease.

Commands (send, cancel, retry) pass through one inbox and finish even when their caller has gone. Turns are run one at
a time by a worker. Both tasks exist only while there is something to do, so that an idle session is a small object.
PostgreSQL decides everything that matters; what is held here is a view of it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog

from server.ports import Accepted, Claim, FencedError, Forgotten, Lease, NewTurn, TurnEnd
from server.protocol.codes import MOVED, CloseCode, ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, Json, Message, Turn, TurnError, TurnStatus
from server.sessions.admission import Admission
from server.sessions.attempt import Attempt, AttemptServices
from server.sessions.log import EventLog, Subscription

log = structlog.get_logger(__name__)
T = TypeVar("T")

_STORE_RETRY_FIRST, _STORE_RETRY_LONGEST, _STORE_GIVE_UP = 0.25, 5.0, 900.0


class Connection(Protocol):
    """One socket of the user, as the session sees it."""

    def wake(self) -> None:
        """There is more to read in the log."""

    def close(self, code: CloseCode) -> None:
        """Say why and end the connection. Never waits."""


@dataclass(frozen=True, slots=True)
class SessionServices:
    """What every session works with. `may_start` is False while draining or while the lease could not be renewed."""

    attempts: AttemptServices
    admission: Admission
    owner: str
    may_start: Callable[[], bool]
    spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
    forget: "Callable[[Session], None]"
    clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    claim_pause: float = 1.0


@dataclass(frozen=True, slots=True)
class RunningTurn:
    """The turn that runs, with what its reply says so far."""

    turn_id: str
    text: str
    attempt: int
    user_message: Message

    def wire(self) -> Json:
        return {
            "turn_id": self.turn_id,
            "text": self.text,
            "attempt": self.attempt,
            "user_message": self.user_message.wire(),
        }


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a session stands at `cursor`: the running turn, and the waiting ones."""

    cursor: EventCursor
    turn: RunningTurn | None
    queued: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of a request to cancel. `duplicate`: the turn was over before it."""

    turn: Turn
    duplicate: bool


@dataclass(frozen=True, slots=True)
class _Begun:
    """A turn that is the running one in the database and waits for its attempt here."""

    turn: Turn
    forgotten: tuple[Forgotten, ...]
    taken_over: bool
    has_place: bool


class Session:
    """See the module. Methods are called from the one event loop."""

    def __init__(self, user_id: str, services: SessionServices) -> None:
        self.user_id = user_id
        self.log = EventLog(services.attempts.limits, services.attempts.now)
        self.connections: list[Connection] = []
        self.lease: Lease | None = None
        self._services = services
        self.last_used = services.clock()
        self._store = services.attempts.store
        self._inbox: deque[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]] | None = None
        self._actor: asyncio.Task[None] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._running: Turn | None = None
        self._attempt: Attempt | None = None
        self._begun: _Begun | None = None
        self._waiting: dict[str, Turn] = {}
        self._to_stop: set[str] = set()
        self._endings: dict[str, asyncio.Future[Turn]] = {}

    # -- what callers ask ----------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Learn what is open for this user, and take it up if nobody else does."""
        self._running, waiting = await self._store.open_turns(self.user_id)
        self._waiting = {turn.id: turn for turn in waiting}
        self.work()

    async def send(self, new: NewTurn) -> Accepted:
        return await self._command(partial(self._accept, partial(self._store.accept, new)))

    async def retry(self, turn_id: str) -> Accepted:
        return await self._command(partial(self._accept, partial(self._store.retry, self.user_id, turn_id)))

    async def cancel(self, turn_id: str | None) -> Cancelled:
        return await self._command(partial(self._cancel, turn_id))

    def work(self) -> None:
        """Make sure somebody runs what is open."""
        if self._worker is None and self._services.may_start() and (self._running or self._waiting):
            self._worker = self._services.spawn(self._work())

    def ending(self, turn_id: str) -> "asyncio.Future[Turn]":
        """Resolves when the turn ends here. Shared by all who ask: shield it."""
        return self._endings.setdefault(turn_id, asyncio.get_running_loop().create_future())

    def forget_ending(self, turn_id: str) -> None:
        """Nobody needs to wait for this turn."""
        self._endings.pop(turn_id, None)

    @property
    def is_idle(self) -> bool:
        return not (self.connections or self._actor or self._worker or self._running or self._waiting)

    def snapshot(self) -> Snapshot:
        running = self._running
        text = self._attempt.reply.text if self._attempt else ""
        shown = None if running is None else RunningTurn(running.id, text, running.attempt, running.user_message)
        return Snapshot(self.log.cursor, shown, tuple(self._waiting.values()))

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
        log.warning("session.lost", user_id=self.user_id, fence=self.lease and self.lease.fence)
        self.lease = None
        self._services.forget(self)
        self.disconnect(MOVED)
        if self._worker is not None:
            self._worker.cancel()

    async def aclose(self) -> None:
        """Stop the tasks. A running turn stays running in the database, for the next owner to recover."""
        tasks = [task for task in (self._actor, self._worker) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def worker(self) -> "asyncio.Task[None] | None":
        """The task that runs turns now, for whoever waits for it at shutdown."""
        return self._worker

    # -- the actor: one command at a time ------------------------------------------------------------------------

    async def _command(self, command: Callable[[], Awaitable[T]]) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.append((command, answer))
        if self._actor is None:
            self._actor = self._services.spawn(self._act(self._inbox))
        return await answer

    async def _act(self, inbox: "deque[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]]") -> None:
        try:
            while inbox:
                command, answer = inbox.popleft()
                try:
                    result = await command()
                except asyncio.CancelledError:
                    answer.cancel()
                    raise
                except Exception as error:
                    if not answer.done():
                        answer.set_exception(error)
                else:
                    if not answer.done():
                        answer.set_result(result)
        finally:
            self._actor = None
            self.last_used = self._services.clock()
            for _, answer in inbox:
                answer.cancel()

    async def _accept(self, store: Callable[..., Awaitable[Accepted]]) -> Accepted:
        services = self._services
        services.admission.check()
        nothing_open = self._worker is None and self._running is None and not self._waiting
        has_place = nothing_open and services.may_start() and services.admission.try_acquire()
        started = False
        try:
            accepted = await store(
                services.owner, start=has_place, max_waiting=services.attempts.limits.waiting_turns_per_user
            )
            started = has_place and accepted.started and not accepted.duplicate
        finally:
            if has_place and not started:
                services.admission.release()
        if accepted.lease is not None:
            self.lease = accepted.lease
        if not accepted.duplicate:
            self._announce(accepted, started)
        elif not accepted.turn.status.ended and not self._knows(accepted.turn):
            self.lease = None  # it was begun elsewhere, or before a restart: claim the session to see where it stands
            await self.load()
        self.work()
        return accepted

    def _knows(self, turn: Turn) -> bool:
        return turn.id in self._waiting or (self._running is not None and self._running.id == turn.id)

    def _announce(self, accepted: Accepted, started: bool) -> None:
        for turn in accepted.cancelled:
            self._ended(turn)
        if (interrupted := accepted.interrupted) is not None:
            self._stop(interrupted)
        if started:
            self._begin(_Begun(accepted.turn, accepted.forgotten, taken_over=False, has_place=True))
        else:
            self._waiting[accepted.turn.id] = accepted.turn
            self._emit_with_message("turn.queued", accepted.turn)

    async def _cancel(self, turn_id: str | None) -> Cancelled:
        turn = await self._store.request_cancel(self.user_id, turn_id)
        if turn.status is TurnStatus.RUNNING:
            self._stop(turn)
        elif turn.id in self._waiting:
            self._ended(turn)
        else:
            return Cancelled(turn, duplicate=True)
        return Cancelled(turn, duplicate=False)

    def _stop(self, turn: Turn) -> None:
        if self._attempt is not None and self._attempt.turn.id == turn.id:
            self._attempt.stop()
        else:
            self._to_stop.add(turn.id)  # it is just being started or taken over
            self.work()

    # -- the worker: one turn at a time --------------------------------------------------------------------------

    async def _work(self) -> None:
        try:
            while self._services.may_start():
                if self.lease is None and not await self._claim():
                    return
                begun = self._begun or await self._start_next()
                if begun is None:
                    return
                await self._run(begun)
        except FencedError:
            self.lost()
        except Exception:
            log.exception("session.worker_failed", user_id=self.user_id)
            self.lost()  # what is open is in the database: whoever claims the session next goes on with it
        finally:
            if self._begun is not None and self._begun.has_place:
                self._services.admission.release()
            self._worker = self._begun = None
            self.last_used = self._services.clock()

    async def _claim(self) -> bool:
        """Take the session over, waiting for another owner's lease to end. False: nothing is open any more."""
        while True:
            claim = await self._patiently(partial(self._store.claim, self.user_id, self._services.owner))
            if claim is not None:
                self._take_over(claim)
                return True
            await asyncio.sleep(self._services.claim_pause)
            running, waiting = await self._patiently(partial(self._store.open_turns, self.user_id))
            if running is None and not waiting:
                self._running, self._waiting = None, {}
                return False

    def _take_over(self, claim: Claim) -> None:
        log.info("session.claimed", user_id=self.user_id, fence=claim.lease.fence, waiting=len(claim.queued))
        self.lease = claim.lease
        self._waiting = {turn.id: turn for turn in claim.queued}
        self._running = claim.running
        if claim.running is not None:
            self._begun = _Begun(claim.running, claim.forgotten, taken_over=True, has_place=False)

    async def _start_next(self) -> _Begun | None:
        if not self._waiting or self.lease is None:
            return None
        await self._services.admission.acquire()
        begun: _Begun | None = None
        try:
            started = await self._patiently(partial(self._store.start, self.lease))
            if started is None:
                self._waiting.clear()
            else:
                begun = _Begun(started.turn, started.forgotten, taken_over=False, has_place=True)
                self._begin(begun)
        finally:
            if begun is None:
                self._services.admission.release()
        return begun

    def _begin(self, begun: _Begun) -> None:
        self._begun, self._running = begun, begun.turn
        self._waiting.pop(begun.turn.id, None)
        self._emit_with_message("turn.started", begun.turn)

    async def _run(self, begun: _Begun) -> None:
        assert self.lease is not None
        turn, began = begun.turn, self._services.clock()
        attempt = Attempt(
            self._services.attempts, self.log, self.lease, turn, begun.forgotten, taken_over=begun.taken_over
        )
        self._attempt, self._begun = attempt, None
        if turn.cancel_requested_at is not None or turn.id in self._to_stop:
            attempt.stop()
        try:
            end = await self._end_of(attempt)
            stored = await self._patiently(partial(self._store.finish, self.lease, end))
        finally:
            if begun.has_place:
                self._services.admission.release(self._services.clock() - began)
        self._attempt = None
        self._ended(stored)
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

    async def _end_of(self, attempt: Attempt) -> TurnEnd:
        try:
            return await attempt.run()
        except Exception:
            log.exception("turn.crashed", user_id=self.user_id, turn_id=attempt.turn.id)
            error = PlatformError(ErrorCode.INTERNAL_ERROR)
            return TurnEnd(
                attempt.turn.id,
                attempt.turn.attempt,
                TurnStatus.FAILED,
                attempt.reply.text,
                error=TurnError(error.code, error.message, error.retryable),
            )

    def _ended(self, turn: Turn) -> None:
        """The one place from which a turn's terminal event is emitted, from the stored row alone."""
        self._waiting.pop(turn.id, None)
        self._to_stop.discard(turn.id)
        if self._running is not None and self._running.id == turn.id:
            self._running = None
        self.log.append(f"turn.{turn.status}", turn.id, turn.attempt, turn=turn.wire())
        ending = self._endings.pop(turn.id, None)
        if ending is not None and not ending.done():
            ending.set_result(turn)

    def _emit_with_message(self, type_: str, turn: Turn) -> None:
        self.log.append(
            type_,
            turn.id,
            turn.attempt,
            user_message=turn.user_message.wire(),
            client_message_id=turn.client_message_id,
            queue_position=turn.queue_position,
        )

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat an idempotent call while the database is away, for up to 15 minutes."""
        pause, until = _STORE_RETRY_FIRST, self._services.clock() + _STORE_GIVE_UP
        while True:
            try:
                return await call()
            except PlatformError as error:
                if error.code is not ErrorCode.SUPABASE_UNAVAILABLE or self._services.clock() > until:
                    raise
                log.warning("session.database_away", user_id=self.user_id, retry_in=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _STORE_RETRY_LONGEST)
