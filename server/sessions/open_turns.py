"""The open turns of one user as they were published: the running turn, and those that wait.

Every change is published as soon as it is known here; a terminal event from the stored row alone.
"""

from dataclasses import replace

from server.ports import SessionStore
from server.protocol.shapes import Turn
from server.sessions.events.log import EventLog
from server.sessions.events.snapshot import RunningTurn, View


class OpenTurns:
    """A view of the user's open rows. `reconcile` reads what other instances changed, and publishes it."""

    __slots__ = ("_events", "_store", "_user_id", "view")

    def __init__(self, user_id: str, store: SessionStore, events: EventLog) -> None:
        self._user_id = user_id
        self._store = store
        self._events = events
        self.view: View = events.view

    def __bool__(self) -> bool:
        return bool(self.view)

    def knows(self, turn: Turn) -> bool:
        return turn.id in self.view.waiting_ids or self.view.runs(turn.id)

    def has_ended(self, turn: Turn) -> bool:
        """Whether the end of this attempt is among the last that were published."""
        return (turn.id, turn.attempt) in self.view.ended

    # -- what happens here ---------------------------------------------------------------------------------------

    def publish_queued(self, turn: Turn) -> None:
        self.view = replace(self.view, waiting=(*self.view.waiting_but(turn.id), turn.wire()))
        self._publish("turn.queued", turn)

    def publish_started(self, turn: Turn) -> None:
        self.view = replace(self.view, running=RunningTurn.of(turn), waiting=self.view.waiting_but(turn.id))
        self._publish("turn.started", turn)

    def publish_end(self, turn: Turn) -> None:
        """Publish the terminal event of an attempt. No other code does."""
        self.view = self.view.with_end(turn)
        self._events.append(turn.terminal_event, turn.id, turn.attempt, view=self.view, turn=turn.wire())

    # -- what happened elsewhere, or whose answer was lost ---------------------------------------------------------

    def begin(self, running: Turn | None, queued: tuple[Turn, ...]) -> None:
        """Begin with these rows, without an event: a connection that joins now gets them in its `ready`."""
        self.view = _view(running, queued)
        self._events.show(self.view)

    def continue_from_log(self) -> None:
        """Begin with what the log shows as open, as its last owner published it."""
        self.view = self._events.view

    async def reconcile(self, running: Turn | None, queued: tuple[Turn, ...]) -> None:
        """Compare with the rows, and publish the differences."""
        await self.reconcile_waiting(running, queued)
        known = self.view.running
        if known is not None and (running is None or running.id != known.turn_id):
            await self._publish_missed_end(known.turn_id)
        if running is not None and (known is None or (known.turn_id, known.attempt) != (running.id, running.attempt)):
            self.publish_started(running)

    async def reconcile_waiting(self, running: Turn | None, queued: tuple[Turn, ...]) -> None:
        """As `reconcile`, without the running turn, which the turn runner reports."""
        still_open = {turn.id for turn in (running, *queued) if turn is not None}
        for turn_id in self.view.waiting_ids - still_open:
            await self._publish_missed_end(turn_id)
        for turn in queued:
            if turn.id not in self.view.waiting_ids:
                self.publish_queued(turn)
        self.view = replace(self.view, waiting=tuple(turn.wire() for turn in queued))

    async def publish_end_of(self, turn_id: str) -> None:
        """Publish the end of a turn that another instance ended, perhaps before it was known here."""
        stored = await self._store.turn(self._user_id, turn_id)
        if stored is not None and stored.status.ended and not self.has_ended(stored):
            self.publish_end(stored)

    async def _publish_missed_end(self, turn_id: str) -> None:
        stored = await self._store.turn(self._user_id, turn_id)
        if stored is not None and stored.status.ended:
            self.publish_end(stored)
        elif self.view.runs(turn_id):
            self.view = replace(self.view, running=None)

    def _publish(self, type_: str, turn: Turn) -> None:
        self._events.append(
            type_,
            turn.id,
            turn.attempt,
            view=self.view,
            user_message=turn.user_message.wire(),
            client_message_id=turn.client_message_id,
            queue_position=turn.queue_position,
        )


def _view(running: Turn | None, queued: tuple[Turn, ...]) -> View:
    return View(None if running is None else RunningTurn.of(running), tuple(turn.wire() for turn in queued))
