"""What is open for one user, as this instance's connections were told: the running turn, the waiting.

Every change is told through the event log as soon as it is known here; a terminal event from the stored row alone.
"""

from dataclasses import replace

from server.ports import SessionStore
from server.protocol.shapes import Turn
from server.sessions.events.log import EventLog
from server.sessions.events.snapshot import RunningTurn, View


class OpenTurns:
    """A view of the user's open rows. What happened to them elsewhere is learned, and told, by `agree`."""

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
        """Whether the end of this attempt was told lately."""
        return (turn.id, turn.attempt) in self.view.ended

    # -- what happens here ---------------------------------------------------------------------------------------

    def queued(self, turn: Turn) -> None:
        self.view = replace(self.view, waiting=(*self.view.waiting_but(turn.id), turn.wire()))
        self._tell("turn.queued", turn)

    def started(self, turn: Turn) -> None:
        self.view = replace(self.view, running=RunningTurn.of(turn), waiting=self.view.waiting_but(turn.id))
        self._tell("turn.started", turn)

    def ended(self, turn: Turn) -> None:
        """The one place from which a terminal event is told."""
        self.view = self.view.with_end(turn)
        self._events.append(turn.terminal_event, turn.id, turn.attempt, view=self.view, turn=turn.wire())

    # -- what happened elsewhere, or whose answer was lost ---------------------------------------------------------

    def take(self, running: Turn | None, queued: tuple[Turn, ...]) -> None:
        """Begin with these: a connection that joins now is shown them in its greeting."""
        self.view = _view(running, queued)
        self._events.show(self.view)

    def continue_from_log(self) -> None:
        """Begin with what the log has told so far, whoever wrote it."""
        self.view = self._events.view

    async def agree(self, running: Turn | None, queued: tuple[Turn, ...]) -> None:
        """Take the rows' word for what is open, and tell the connections what they were not told of it."""
        await self.agree_on_waiting(running, queued)
        known = self.view.running
        if known is not None and (running is None or running.id != known.turn_id):
            await self._learn_end(known.turn_id)
        if running is not None and (known is None or (known.turn_id, known.attempt) != (running.id, running.attempt)):
            self.started(running)

    async def agree_on_waiting(self, running: Turn | None, queued: tuple[Turn, ...]) -> None:
        """As `agree`, but leave the running turn to the worker that tells of it."""
        still_open = {turn.id for turn in (running, *queued) if turn is not None}
        for turn_id in self.view.waiting_ids - still_open:
            await self._learn_end(turn_id)
        for turn in queued:
            if turn.id not in self.view.waiting_ids:
                self.queued(turn)
        self.view = replace(self.view, waiting=tuple(turn.wire() for turn in queued))

    async def learn_end(self, turn_id: str) -> None:
        """Publish the end of a turn that another instance ended, perhaps before it was known here."""
        stored = await self._store.turn(self._user_id, turn_id)
        if stored is not None and stored.status.ended and not self.has_ended(stored):
            self.ended(stored)

    async def _learn_end(self, turn_id: str) -> None:
        stored = await self._store.turn(self._user_id, turn_id)
        if stored is not None and stored.status.ended:
            self.ended(stored)
        elif self.view.runs(turn_id):
            self.view = replace(self.view, running=None)

    def _tell(self, type_: str, turn: Turn) -> None:
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
