"""The replica of each session's event log, from which every instance reads it, and control messages between instances.

A replica is a copy, never truth: what it loses is published anew from the rows. The session's owner alone appends to
it, under the fence of its lease.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Literal, Protocol

from server.ports.sessions import Lease
from server.protocol.shapes import Json


class ReplicasUnavailableError(Exception):
    """The backend cannot be reached, or accepts no writes. What it was asked for may have happened."""


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """A replica at its newest event, `head`, as the owner with `fence` wrote it.

    `view` is what is open then, encoded; `text` is the reply of attempt `text_of` (`turn:attempt`), encoded.
    """

    fence: int
    epoch: str
    head: int = 0
    view: bytes = b""
    text_of: str = ""
    text: str = ""


@dataclass(slots=True)
class Append:
    """Events to append behind number `after`. Those up to `trim` are no longer kept.

    `view` is what is open as of the last event, None where that has not changed; `text` is added to the stored text if
    `text_of` stays the same, and replaces it otherwise. Without events it only shows the fence.
    """

    lease: Lease
    epoch: str
    after: int
    events: tuple[bytes, ...] = ()
    trim: int = 0
    view: bytes | None = None
    text_of: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A whole replica: `state`, and the newest `events` up to its head."""

    lease: Lease
    state: ReplicaState
    events: tuple[bytes, ...] = ()


class Refusal(Enum):
    """Why nothing was appended. `ABSENT`: there is no replica, or one of another epoch, or a broken one."""

    FENCED = "fenced"
    ABSENT = "absent"


@dataclass(slots=True)
class Published:
    """What followers of a replica receive: events behind number `after`, and what is open as of the last of them.

    `state` is the whole state as of the last of them, where the replica was rewritten.
    """

    fence: int
    epoch: str
    after: int
    events: tuple[bytes, ...]
    view: bytes | None
    state: ReplicaState | None = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """An event that no running turn causes; `turn_id`, `attempt` where it is about one. `fields` are JSON."""

    type: Literal["agent.status", "usage.settled", "budget.warning", "history.deleted"]
    fields: Json
    turn_id: str | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """An open connection of a user, and the sign-in or the API key with which it was opened, by its id."""

    kind: Literal["websocket", "events"]
    opened_at: datetime
    session_id: str | None
    key_id: str | None


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """What instances send each other beside events.

    `refresh`: the user's rows have changed, and their owner should read them; `ended` is a turn that was ended there.
    `unowned`: open turns wait for an owner. `announce`: an event for the user's connections. `recheck`: the user's
    account, or a sign-in or API key of the user, may have ended. `connections`: each instance that has connections of
    the user should name them, by a `connected` with the same `request`.
    """

    kind: Literal["refresh", "unowned", "announce", "recheck", "connections", "connected"]
    user_id: str
    ended: str | None = None
    event: Announcement | None = None
    request: str | None = None
    connections: tuple[OpenConnection, ...] = ()


class ReplicaListener(Protocol):
    """What an instance is called with. Never waits."""

    def published(self, user_id: str, published: Published) -> None: ...

    def missed(self) -> None:
        """The connection broke and was made again: anything may have been published meanwhile."""

    def received(self, message: ControlMessage) -> None: ...

    def unavailable(self) -> None: ...

    def recovered(self) -> None:
        """The backend is available again. What it holds may be old."""


class ReplicaBackend(Protocol):
    """Every method but `running`, `unfollow` and `report_unavailable` may raise ReplicasUnavailableError."""

    def running(self, listener: ReplicaListener) -> AbstractAsyncContextManager[None]:
        """Connect, and call `listener`, until the context is left. Returns also where the backend is unavailable."""
        ...

    @property
    def is_available(self) -> bool: ...

    def report_unavailable(self) -> None:
        """A call found it unavailable. It is tried again until it can be written to."""
        ...

    async def follow(self, user_id: str) -> None:
        """Call the listener with what is published for this user. Nothing published after this returns is missed."""
        ...

    def unfollow(self, user_id: str) -> None: ...

    async def state(self, user_id: str) -> ReplicaState | None:
        """None: there is no replica. Nothing is created."""
        ...

    async def take_over(self, lease: Lease) -> ReplicaState | None:
        """As `state`, with the last owner's fence; from now on no older one can append. Raises FencedError."""
        ...

    async def append(self, appends: Sequence[Append]) -> list[int | Refusal]:
        """For each its replica's head afterwards. Where that is not `after` and the number of events, nothing was
        appended: the replica ended elsewhere than `after`, for instance because the events are there already."""
        ...

    async def rewrite(self, rewrites: Sequence[Rewrite]) -> list[int | Refusal]:
        """Replace each replica. The head afterwards, or FENCED. Followers receive its events as any other."""
        ...

    async def read(self, user_id: str, epoch: str, after: int, upto: int) -> tuple[bytes, ...] | None:
        """The events behind number `after`, up to `upto`. None where not all of them are kept."""
        ...

    async def broadcast(self, message: ControlMessage) -> None:
        """Send it to all other instances. It may be lost."""
        ...

    async def keep(self, user_ids: Sequence[str]) -> None:
        """These users are connected: their replicas expire as if appended to now."""
        ...
