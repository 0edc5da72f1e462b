"""What users ask of their turns: a message, a retry, a cancel. Stored first, then run, published, or left to the owner.

Each is a command of the session's mailbox.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

from server.ports import Accepted, ControlMessage, FencedError
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnStatus
from server.sessions.context import SessionContext
from server.sessions.events.replication import Replication
from server.sessions.events.snapshot import Cancelled, View
from server.sessions.lease import LeaseHolder
from server.sessions.life_cycle import LifeCycle
from server.sessions.open_turns import OpenTurns
from server.sessions.state import BUSY, Event, Phase
from server.sessions.turn_runner import RunnableTurn, TurnRunner

FREE: Final = frozenset({Phase.FOLLOWING, Phase.OWNER_IDLE, Phase.RELEASING})
"""Phases in which a turn that is accepted now can start at once, if nothing is open."""


class Owner(Protocol):
    """The session whose turns these are."""

    user_id: str
    context: SessionContext
    life: LifeCycle
    held: LeaseHolder
    open_turns: OpenTurns
    runner: TurnRunner
    replication: Replication

    @property
    def is_over(self) -> bool: ...

    @property
    def view(self) -> View: ...

    async def claim(self) -> bool: ...

    async def compare_with_rows(self) -> bool: ...

    def start(self, runnable: RunnableTurn) -> None: ...

    def lost(self) -> None: ...

    def used(self) -> None: ...


class Acceptance:
    def __init__(self, session: Owner) -> None:
        self._session = session
        self._context = session.context
        self._store = session.context.attempts.store

    async def accept(self, store: Callable[..., Awaitable[Accepted]]) -> Accepted:
        """Have a turn stored, and see to it: run it, publish it, or leave both to the owner."""
        context, held = self._context, self._session.held
        if not held.publishes and self._session.view:
            await self._session.claim()  # its owner may be gone: then it is for this instance to publish how it ended
        overloaded = context.admission.overloaded
        can_start = (
            self._session.life.phase in FREE
            and not self._session.life.state.stale
            and not self._session.view
            and context.may_start()
        )
        has_slot, started = can_start and context.admission.try_acquire(), False
        try:
            accepted = await self._stored(partial(store, context.owner, start=has_slot, overloaded=overloaded))
            started = has_slot and accepted.started and not accepted.duplicate and not self._session.is_over
        finally:
            if has_slot and not started:
                context.admission.release()
        self._session.used()
        if self._session.is_over:
            context.recover(self._session.user_id)  # lost in the meantime: the turn is for the session that follows
        elif not held.publishes:
            is_news = accepted.turn.status.ended and not accepted.duplicate
            ended = accepted.turn.id if is_news else None
            context.logs.broadcast(ControlMessage("refresh", self._session.user_id, ended))
        elif not accepted.duplicate:
            self._take_note(accepted, started)
        elif not (accepted.turn.status.ended or self._session.open_turns.knows(accepted.turn)):
            self._session.life.move(Event.DOUBTED)  # begun elsewhere, or before an answer was lost
            await self._session.compare_with_rows()
        return accepted

    async def _stored(self, store: Callable[..., Awaitable[Accepted]]) -> Accepted:
        context, held = self._context, self._session.held
        try:
            accepted = await store()
            held.check(accepted.lease)
            if accepted.lease is not None and await held.hold(accepted.lease, accepted.mark):
                await self._take_over(accepted)
            return accepted
        except FencedError as error:
            self._session.lost()
            context.recover(self._session.user_id)
            raise PlatformError(ErrorCode.EVENTS_UNAVAILABLE, retry_after=1.0) from error
        except PlatformError as error:
            self._doubt_answer(error)
            if error.code is ErrorCode.OVERLOADED:
                raise context.admission.refusal() from error
            raise

    async def _take_over(self, accepted: Accepted) -> None:
        """Before the accepted turn is published, publish what the last owner did not of the others."""
        if self._session.is_over:
            return
        was_stale = self._session.life.state.stale
        self._session.life.move(Event.CLAIMED)
        if self._session.replication.is_shared and self._session.open_turns:
            running, queued = await self._store.open_turns(self._session.user_id)
            others = tuple(turn for turn in queued if turn.id != accepted.turn.id)
            await self._session.open_turns.reconcile(
                running if running and running.id != accepted.turn.id else None, others
            )
        if was_stale or not accepted.started:
            self._session.life.move(Event.DOUBTED)  # what it waits for may be a turn that its owner left running

    def _doubt_answer(self, error: PlatformError) -> None:
        """The database did not answer: what it was asked to do may be done all the same."""
        if error.code is ErrorCode.SUPABASE_UNAVAILABLE:
            self._session.life.move(Event.DOUBTED)

    def _take_note(self, accepted: Accepted, started: bool) -> None:
        for turn in accepted.cancelled:
            self._session.open_turns.ended(turn)
        if accepted.interrupted is not None:
            self._session.runner.stop(accepted.interrupted)
        if started:
            self._session.open_turns.started(accepted.turn)
            self._session.start(RunnableTurn(accepted.turn, accepted.forgotten))
        elif accepted.turn.status.ended:
            self._session.open_turns.ended(accepted.turn)
        else:
            self._session.open_turns.queued(accepted.turn)

    async def cancel(self, turn_id: str | None) -> Cancelled:
        try:
            turn = await self._store.request_cancel(self._session.user_id, turn_id)
        except PlatformError as error:
            self._doubt_answer(error)
            raise
        was_open = turn.status is TurnStatus.RUNNING or turn.id in self._session.view.waiting_ids
        if not self._session.held.publishes and (was_open or turn.status is TurnStatus.CANCELLED):
            # Also where it had ended before: its owner may not have seen it yet, and then it was not published.
            ended = turn.id if turn.status.ended else None
            self._context.logs.broadcast(ControlMessage("refresh", self._session.user_id, ended))
            if ended:
                self._session.life.move(Event.DOUBTED)  # without an owner it is for this instance to publish
        elif turn.status is TurnStatus.RUNNING:
            self._session.runner.stop(turn)
            if self._session.life.phase not in BUSY:
                self._session.life.move(Event.DOUBTED)
        elif was_open:
            self._session.open_turns.ended(turn)
        return Cancelled(turn, duplicate=not was_open)
