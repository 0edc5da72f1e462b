"""Runs one turn at a time: an attempt at it, to its stored end, also when something fails on the way."""

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from server.aio import cancel_and_wait
from server.ports import Forgotten, Lease, TurnEnd
from server.protocol.shapes import Turn
from server.sessions.context import SessionContext
from server.sessions.events.log import EventLog
from server.sessions.turns.attempt import Attempt
from server.sessions.turns.conclusion import end_of, store_end

log = structlog.get_logger(__name__)

_NONE: Final[frozenset[tuple[str, int]]] = frozenset()
"""One for all: an empty set takes 216 bytes."""


@dataclass(frozen=True, slots=True)
class RunnableTurn:
    """A turn that is the running one in the database. One that is taken over was started by another owner `age` seconds
    ago, and needs no slot of admission here: it must not wait for one."""

    turn: Turn
    forgotten: tuple[Forgotten, ...]
    is_taken_over: bool = False
    age: float = 0.0


class RunnerCallbacks(Protocol):
    """What the session does when something has become of its turn."""

    @property
    def lease(self) -> Lease | None:
        """The newest one: it may have run out and been claimed again while the turn ran."""
        ...

    def attempt_ended(self) -> None: ...

    async def end_stored(self, turn: Turn) -> None: ...

    async def failed(self, error: Exception) -> None: ...


class TurnRunner:
    """Its task exists only while a turn runs. The slot of admission is its own from `start` on."""

    __slots__ = ("_attempt", "_callbacks", "_context", "_events", "_slot_since", "_task", "_to_stop", "ended_at")

    def __init__(self, context: SessionContext, events: EventLog, callbacks: RunnerCallbacks) -> None:
        self._context = context
        self._events = events
        self._callbacks = callbacks
        self._attempt: Attempt | None = None
        self._task: asyncio.Task[None] | None = None
        self._slot_since: float | None = None
        self._to_stop = _NONE
        self.ended_at = context.clock()

    def start(self, runnable: RunnableTurn) -> None:
        assert self._task is None, "one turn at a time"
        self._task = self._context.spawn(self._run(runnable))
        self._slot_since = self._context.clock() if not runnable.is_taken_over else None
        self._task.add_done_callback(self._ended)

    def stop(self, turn: Turn) -> None:
        """The user wants this turn to end, now or as soon as it runs here."""
        if self._attempt is not None and self._attempt.turn.id == turn.id:
            self._attempt.stop()
        else:
            self._to_stop |= {(turn.id, turn.attempt)}

    def is_stopping(self, turn_id: str) -> bool:
        if self._attempt is not None and self._attempt.turn.id == turn_id:
            return self._attempt.is_stopping
        return any(turn_id == stopped for stopped, _ in self._to_stop)

    def abandon(self) -> None:
        """Stop at once. What runs stays running in the database, for the next owner."""
        if self._task is not None:
            self._task.cancel()

    async def aclose(self) -> None:
        await cancel_and_wait(self._task)

    async def _run(self, runnable: RunnableTurn) -> None:
        try:
            stored = await self._conclude(runnable)
        except Exception as error:
            self._attempt = self._task = None
            self._release_slot()
            await self._callbacks.failed(error)
        else:
            self._attempt = self._task = None
            self._release_slot()
            self._to_stop -= {(stored.id, runnable.turn.attempt)}
            self._context.crashes.succeeded(stored.user_id)
            await self._callbacks.end_stored(stored)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self.ended_at = self._context.clock()
        if self._task is task or self._task is None:
            self._release_slot()  # cut off
        if self._task is task:
            self._attempt = self._task = None

    def _release_slot(self) -> None:
        since, self._slot_since = self._slot_since, None
        if since is not None:
            self._context.admission.release(self._context.clock() - since)

    async def _conclude(self, runnable: RunnableTurn) -> Turn:
        """Run an attempt at the turn, and store its end. Raises as `store_end`."""
        began = self._context.clock()
        attempt = self._attempt = self._attempt_at(runnable)
        end = await end_of(attempt)
        self._callbacks.attempt_ended()
        stored = await store_end(end, runnable.turn.user_id, self._finish)
        self._log_end(stored, attempt, began)
        return stored

    def _attempt_at(self, runnable: RunnableTurn) -> Attempt:
        turn, lease = runnable.turn, self._callbacks.lease
        assert lease is not None
        attempt = Attempt(
            self._context.attempts,
            self._events,
            lease,
            turn,
            runnable.forgotten,
            may_send=self._context.is_current,
            is_taken_over=runnable.is_taken_over,
            age=runnable.age,
        )
        if turn.cancel_requested_at is not None or (turn.id, turn.attempt) in self._to_stop:
            attempt.stop()
        return attempt

    async def _finish(self, end: TurnEnd) -> Turn:
        lease = self._callbacks.lease
        assert lease is not None
        return await self._context.attempts.store.finish(lease, end)

    def _log_end(self, stored: Turn, attempt: Attempt, began: float) -> None:
        log.info(
            "turn.ended",
            user_id=stored.user_id,
            turn_id=stored.id,
            attempt=attempt.turn.attempt,
            status=stored.status,
            error=stored.error and stored.error.code,
            run_id=attempt.reply.run_id,
            duration_ms=round((self._context.clock() - began) * 1000),
        )
