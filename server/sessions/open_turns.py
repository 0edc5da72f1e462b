"""What is open for one user, as this instance knows it and as its connections were told: the running turn, the waiting.

Every change is told through the event log as soon as it is known here; a terminal event from the stored row alone.
"""

import asyncio

from server.ports import SessionStore
from server.protocol.shapes import Turn
from server.sessions.log import EventLog


class OpenTurns:
    """A view of the user's open rows. What happened to them elsewhere is learned, and told, by `agree`."""

    __slots__ = ("_endings", "_events", "_store", "_user_id", "running", "waiting")

    def __init__(self, user_id: str, store: SessionStore, events: EventLog) -> None:
        self._user_id = user_id
        self._store = store
        self._events = events
        self._endings: dict[str, asyncio.Future[Turn]] = {}
        self.running: Turn | None = None
        self.waiting: dict[str, Turn] = {}

    def __bool__(self) -> bool:
        return self.running is not None or bool(self.waiting)

    def knows(self, turn: Turn) -> bool:
        return turn.id in self.waiting or (self.running is not None and self.running.id == turn.id)

    # -- what happens here ---------------------------------------------------------------------------------------

    def queued(self, turn: Turn) -> None:
        self.waiting[turn.id] = turn
        self._tell("turn.queued", turn)

    def started(self, turn: Turn) -> None:
        self.running = turn
        self.waiting.pop(turn.id, None)
        self._tell("turn.started", turn)

    def ended(self, turn: Turn) -> None:
        """The one place from which a terminal event is told."""
        self.waiting.pop(turn.id, None)
        if self.running is not None and self.running.id == turn.id:
            self.running = None
        self._events.append(turn.terminal_event, turn.id, turn.attempt, turn=turn.wire())
        ending = self._endings.pop(turn.id, None)
        if ending is not None and not ending.done():
            ending.set_result(turn)

    def ending(self, turn_id: str) -> "asyncio.Future[Turn]":
        """Resolves when the turn ends here. Shared by all who ask: shield it."""
        return self._endings.setdefault(turn_id, asyncio.get_running_loop().create_future())

    def forget_ending(self, turn_id: str) -> None:
        """Nobody needs to wait for this turn."""
        self._endings.pop(turn_id, None)

    # -- what happened elsewhere, or whose answer was lost ---------------------------------------------------------

    def take(self, running: Turn | None, queued: tuple[Turn, ...]) -> None:
        """Begin with these: a connection that joins now is shown them in its greeting."""
        self.running, self.waiting = running, {turn.id: turn for turn in queued}

    async def agree(self, running: Turn | None, queued: tuple[Turn, ...]) -> None:
        """Take the rows' word for what is open, and tell the connections what they were not told of it."""
        await self.agree_on_waiting(running, queued)
        known = self.running
        if known is not None and (running is None or running.id != known.id):
            await self._learn_end(known)
        if running is not None and (known is None or running.id != known.id):
            self._tell("turn.started", running)
        self.running = running

    async def agree_on_waiting(self, running: Turn | None, queued: tuple[Turn, ...]) -> None:
        """As `agree`, but leave the running turn to the worker that tells of it."""
        still_open = {turn.id for turn in (running, *queued) if turn is not None}
        for turn in tuple(self.waiting.values()):
            if turn.id not in still_open:
                await self._learn_end(turn)
        for turn in queued:
            if turn.id not in self.waiting:
                self._tell("turn.queued", turn)
        self.waiting = {turn.id: turn for turn in queued}

    async def _learn_end(self, known: Turn) -> None:
        stored = await self._store.turn(self._user_id, known.id)
        if stored is not None and stored.status.ended:
            self.ended(stored)

    def _tell(self, type_: str, turn: Turn) -> None:
        self._events.append(
            type_,
            turn.id,
            turn.attempt,
            user_message=turn.user_message.wire(),
            client_message_id=turn.client_message_id,
            queue_position=turn.queue_position,
        )
