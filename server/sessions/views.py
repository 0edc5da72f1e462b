"""What a session and those who use it show each other: connections to it, where it stands, what became of a request."""

from dataclasses import dataclass
from typing import Protocol

from server.protocol.codes import CloseCode
from server.protocol.cursors import EventCursor
from server.protocol.shapes import Json, Message, Turn


class Connection(Protocol):
    """One socket of the user, as the session sees it."""

    def wake(self) -> None:
        """There is more to read in the log."""

    def close(self, code: CloseCode) -> None:
        """Say why and end the connection. Never waits."""


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
