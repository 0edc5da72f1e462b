"""Carrying the events of sessions between instances: each session's log as all of them can read it, and notices.

A relay is transport, never truth: what it loses is told anew from the rows. Only the owner of a session writes to its
log, under the fence of its lease.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from server.ports.sessions import Lease
from server.protocol.shapes import Json


class RelayAwayError(Exception):
    """The relay cannot be reached, or cannot take anything. What was asked of it may have happened."""


@dataclass(frozen=True, slots=True)
class SharedState:
    """A session's log at its newest event, `head`.

    `view` is what is open then, as the owner wrote it (b"" before it wrote anything); `text` is what the reply of
    attempt `text_of` (`turn:attempt`) has said.
    """

    epoch: str
    head: int = 0
    view: bytes = b""
    text_of: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A log as it was found. `fresh`: it was not there, and was begun. `intact`: everything that any instance ever
    delivered of it is in it; False where the relay restarted meanwhile and may have lost the newest."""

    state: SharedState
    fresh: bool = False
    intact: bool = True


@dataclass(frozen=True, slots=True)
class Batch:
    """Events to append behind number `head`. Those up to `drop` are no longer kept. `view` and `text` as in
    SharedState; `text` is added where `text_of` stays the same."""

    lease: Lease
    epoch: str
    head: int
    drop: int
    events: tuple[bytes, ...]
    view: bytes | None = None
    text_of: str | None = None
    text: str = ""


class Outcome(Enum):
    """What became of a batch. `LOST`: the log is not there, or does not end where its owner believes."""

    APPENDED = "appended"
    FENCED = "fenced"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Published:
    """What followers of a log are sent: events behind number `head`."""

    epoch: str
    head: int
    events: tuple[bytes, ...]
    view: bytes | None


@dataclass(frozen=True, slots=True)
class News:
    """An event that tells of no turn's running; `turn_id`, `attempt` where it is about one. `fields` are JSON."""

    type: Literal["agent.status", "usage.settled", "budget.warning"]
    fields: Json
    turn_id: str | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something every instance is told. `look`: the user's rows have changed, for the owner to see; `ended` is a turn
    that was ended there. `free`: open turns wait for an owner. `tell`: an event owed to the user's connections."""

    kind: Literal["look", "free", "tell"]
    user_id: str
    ended: str | None = None
    event: News | None = None


class RelayReader(Protocol):
    """What an instance is told by its relay. Never waits."""

    def published(self, user_id: str, news: Published) -> None: ...

    def begun(self, user_id: str) -> None:
        """The log was begun anew by its owner."""

    def missed(self) -> None:
        """The connection broke and is back: anything may have been published meanwhile."""

    def noticed(self, notice: Notice) -> None: ...

    def away(self) -> None:
        """The relay cannot be reached."""

    def back(self) -> None:
        """The relay can be reached again. What it holds may be old."""


class EventRelay(Protocol):
    """Every method but `running`, `unfollow` and `report_away` may raise RelayAwayError."""

    def running(self, reader: RelayReader) -> AbstractAsyncContextManager[None]:
        """Connect, and tell `reader` what happens, until the context is left. Returns also where it is away."""
        ...

    @property
    def is_away(self) -> bool: ...

    def report_away(self) -> None:
        """Somebody found that it cannot be reached. It is tried again until it can be written to."""
        ...

    async def follow(self, user_id: str) -> None:
        """Tell the reader what is published for this user. Nothing published after this returns is missed."""
        ...

    def unfollow(self, user_id: str) -> None: ...

    async def look(self, user_id: str, epoch: str) -> Found:
        """The user's log; begun with `epoch` if there is none."""
        ...

    async def take(self, lease: Lease, epoch: str) -> Found:
        """As `look`, and from now on nobody with an older fence may write. Raises FencedError."""
        ...

    async def begin(self, lease: Lease, state: SharedState) -> None:
        """Begin the log anew with this state and no events. Raises FencedError."""
        ...

    async def append(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Append each batch, whole or not at all. A batch that is appended already is not appended again."""
        ...

    async def read(self, user_id: str, epoch: str, after: int, upto: int) -> tuple[bytes, ...] | None:
        """The events behind number `after`, up to `upto`. None where not all of them are kept."""
        ...

    async def notify(self, notice: Notice) -> None: ...

    async def keep(self, user_ids: Sequence[str]) -> None:
        """These users are connected: their logs are kept as if written to now."""
        ...
