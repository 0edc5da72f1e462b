"""What users ask of their turns: a message, a retry, a cancel. Stored first, then run, published, or left to the owner.

Each is a command of the session's mailbox.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from server.ports import Accepted, ControlMessage, FencedError
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Turn, TurnStatus
from server.sessions.context import SessionContext
from server.sessions.events.snapshot import Cancelled
from server.sessions.ownership import Ownership
from server.sessions.state import BUSY, Event, Phase
from server.sessions.turn_runner import RunnableTurn

FREE: Final = frozenset({Phase.FOLLOWING, Phase.OWNER_IDLE, Phase.RELEASING})
"""Phases in which a turn that is accepted now can start at once, if nothing is open."""


class Acceptance:
    __slots__ = ("_context", "_life", "_open", "_ownership", "_store")

    def __init__(self, ownership: Ownership, context: SessionContext) -> None:
        self._context = context
        self._ownership = ownership
        self._life = ownership.life
        self._open = ownership.open_turns
        self._store = context.attempts.store

    async def accept(self, write: Callable[..., Awaitable[Accepted]]) -> Accepted:
        """Store a turn by `write`, and see to it: run it, publish it, or leave both to the owner."""
        context, ownership = self._context, self._ownership
        if ownership.view and not ownership.publishes:
            await ownership.claim()  # its owner may be gone: then it is for this instance to publish how it ended
        overloaded = context.admission.overloaded
        has_slot, started = self._can_start() and context.admission.try_acquire(), False
        if has_slot:
            context.attempts.agents.prefetch(ownership.user_id)  # beside the acceptance, not after it
        try:
            accepted = await self._written(partial(write, context.owner, start=has_slot, overloaded=overloaded))
            started = has_slot and accepted.started and not accepted.duplicate and not ownership.is_over
        finally:
            if has_slot and not started:
                context.admission.release()
        if ownership.is_over:
            context.recover(ownership.user_id)  # lost in the meantime: the turn is for the session that follows
        elif not ownership.publishes:
            self._ask_owner(accepted.turn, is_news=not accepted.duplicate)
        elif not accepted.duplicate:
            self._publish(accepted, started)
        elif not (accepted.turn.status.ended or self._open.knows(accepted.turn)):
            self._life.move(Event.OUTDATED)  # begun elsewhere, or before an answer was lost
            await ownership.reconcile()
        return accepted

    def _can_start(self) -> bool:
        state = self._life.state
        return state.phase in FREE and not state.outdated and not self._ownership.view and self._context.may_start()

    async def _written(self, write: Callable[[], Awaitable[Accepted]]) -> Accepted:
        context, ownership = self._context, self._ownership
        try:
            accepted = await write()
            ownership.check(accepted.lease)
            if accepted.lease is not None and await ownership.granted(accepted.lease, accepted.mark):
                await self._take_over(accepted)
            return accepted
        except FencedError as error:
            ownership.lost()
            context.recover(ownership.user_id)
            raise PlatformError(ErrorCode.EVENTS_UNAVAILABLE, retry_after=1.0) from error
        except PlatformError as error:
            self._unanswered(error)
            if error.code is ErrorCode.OVERLOADED:
                raise context.admission.refusal() from error
            raise

    async def _take_over(self, accepted: Accepted) -> None:
        """Before the accepted turn is published, publish what the last owner did not of the others."""
        if self._ownership.is_over:
            return
        was_outdated = self._life.state.outdated
        self._life.move(Event.CLAIMED)
        if self._ownership.replication.is_shared and self._open:
            running, queued = await self._store.open_turns(self._ownership.user_id)
            others = tuple(turn for turn in queued if turn.id != accepted.turn.id)
            await self._open.reconcile(running if running and running.id != accepted.turn.id else None, others)
        if was_outdated or not accepted.started:
            self._life.move(Event.OUTDATED)  # what it waits for may be a turn that its owner left running

    def _unanswered(self, error: PlatformError) -> None:
        """If the database did not answer, what it was asked to do may be done all the same."""
        if error.code is ErrorCode.SUPABASE_UNAVAILABLE:
            self._life.move(Event.OUTDATED)

    def _publish(self, accepted: Accepted, started: bool) -> None:
        for turn in accepted.cancelled:
            self._open.publish_end(turn)
        if accepted.interrupted is not None:
            self._ownership.runner.stop(accepted.interrupted)
        if started:
            self._open.publish_started(accepted.turn)
            self._ownership.start(RunnableTurn(accepted.turn, accepted.forgotten))
        elif accepted.turn.status.ended:
            self._open.publish_end(accepted.turn)
        else:
            self._open.publish_queued(accepted.turn)

    def _ask_owner(self, turn: Turn, *, is_news: bool) -> None:
        """Have the owner read the rows. `is_news`: it may not know yet that the turn ended, if it did."""
        ended = turn.id if is_news and turn.status.ended else None
        self._context.logs.broadcast(ControlMessage("refresh", self._ownership.user_id, ended))

    async def cancel(self, turn_id: str | None) -> Cancelled:
        ownership = self._ownership
        try:
            turn = await self._store.request_cancel(ownership.user_id, turn_id)
        except PlatformError as error:
            self._unanswered(error)
            raise
        was_open = turn.status is TurnStatus.RUNNING or turn.id in ownership.view.waiting_ids
        if not ownership.publishes and (was_open or turn.status is TurnStatus.CANCELLED):
            # Also where it had ended before: its owner may not have seen it yet, and then it was not published.
            self._ask_owner(turn, is_news=True)
            if turn.status.ended:
                self._life.move(Event.OUTDATED)  # without an owner it is for this instance to publish
        elif turn.status is TurnStatus.RUNNING:
            ownership.runner.stop(turn)
            if self._life.phase not in BUSY:
                self._life.move(Event.OUTDATED)
        elif was_open:
            self._open.publish_end(turn)
        return Cancelled(turn, duplicate=not was_open)
