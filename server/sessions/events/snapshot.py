"""What is open in a session, the snapshot for a connection that joins, and the connection as the session sees it."""

from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import orjson

from server.protocol.codes import CloseCode
from server.protocol.cursors import EventCursor
from server.protocol.shapes import Json, Turn

_ENDS_KEPT: Final = 32


class Connection(Protocol):
    """One socket of the user, as the session sees it."""

    def deliver(self) -> None:
        """There is more to read in the log. Never waits."""

    def close(self, code: CloseCode) -> None:
        """End the connection, with the reason. Never waits."""


@dataclass(frozen=True, slots=True)
class RunningTurn:
    """The turn that runs. `user_message` as on the wire."""

    turn_id: str
    attempt: int
    user_message: Json

    @classmethod
    def of(cls, turn: Turn) -> "RunningTurn":
        return cls(turn.id, turn.attempt, turn.user_message.wire())


@dataclass(frozen=True, slots=True)
class View:
    """What is open as of some event: the running turn, and those that wait, in order.

    `ended` are the attempts whose ends were published last: the id of the turn, and the number of the attempt.
    """

    running: RunningTurn | None = None
    waiting: tuple[Json, ...] = ()
    ended: tuple[tuple[str, int], ...] = ()

    def __bool__(self) -> bool:
        return self.running is not None or bool(self.waiting)

    @property
    def waiting_ids(self) -> frozenset[str]:
        return frozenset(turn["id"] for turn in self.waiting)

    def waiting_but(self, turn_id: str) -> tuple[Json, ...]:
        return tuple(turn for turn in self.waiting if turn["id"] != turn_id)

    def runs(self, turn_id: str) -> bool:
        return self.running is not None and self.running.turn_id == turn_id

    def with_end(self, turn: Turn) -> "View":
        """What is open as of the end of this turn."""
        running = None if self.runs(turn.id) else self.running
        return View(running, self.waiting_but(turn.id), (*self.ended, (turn.id, turn.attempt))[-_ENDS_KEPT:])

    def encode(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def decode(cls, data: bytes) -> "View":
        """What `encode` wrote; nothing open for b""."""
        if not data:
            return NOTHING_OPEN
        fields: dict[str, Any] = orjson.loads(data)
        running = fields["running"]
        ended = ((turn_id, attempt) for turn_id, attempt in fields.get("ended", ()))  # an older release has none
        return cls(None if running is None else RunningTurn(**running), tuple(fields["waiting"]), tuple(ended))


NOTHING_OPEN = View()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A session as of `cursor`: what is open, and the running turn's text and steps so far."""

    cursor: EventCursor
    running: RunningTurn | None
    text: str
    queued: tuple[Json, ...]
    steps: tuple[Json, ...] = ()

    def of(self, turn: Turn) -> "Snapshot":
        """The part that belongs to one turn's attempt."""
        running = self.running
        if running is not None and (running.turn_id, running.attempt) != (turn.id, turn.attempt):
            running = None
        return replace(self, running=running, queued=tuple(one for one in self.queued if one["id"] == turn.id))

    def turn(self) -> Json | None:
        """The running turn as the `ready` frame shows it."""
        if self.running is None:
            return None
        return {
            "turn_id": self.running.turn_id,
            "text": self.text,
            "attempt": self.running.attempt,
            "user_message": self.running.user_message,
            "steps": self.steps,
        }


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of a request to cancel. `duplicate`: the turn was over before it."""

    turn: Turn
    duplicate: bool
