"""Turns, their order, and the lease under which they run. PostgreSQL is the source of truth: each method is one
transaction."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from server.ports.ledger import Estimate
from server.protocol.limits import Allowance
from server.protocol.shapes import Json, OnBusy, Turn, TurnError, TurnStatus, Usage


class FencedError(Exception):
    """Another owner has taken over the lease or claim. The caller must stop at once and change nothing."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a user's turns: valid while `fence` is the newest for that user."""

    user_id: str
    owner: str
    fence: int


@dataclass(frozen=True, slots=True)
class LogMark:
    """The end of a session's event log when its owner released the lease: nothing was appended after it."""

    epoch: str
    head: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A failed or cancelled turn that is missing from the agent's memory: the next send carries it."""

    turn_id: str
    user_text: str
    partial_reply: str


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A message to accept. `content_hash` is the SHA-256 hex of the content."""

    user_id: str
    client_message_id: str
    content: str
    content_hash: str
    on_busy: OnBusy

    @classmethod
    def of(cls, user_id: str, client_message_id: str, content: str, on_busy: OnBusy) -> "NewTurn":
        """The message with the hash of its content."""
        return cls(user_id, client_message_id, content, hashlib.sha256(content.encode()).hexdigest(), on_busy)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stored turn. `lease` is None while another owner holds the session.

    `started`: the turn is running now, owned by `lease`; its send carries `forgotten`. `cancelled`: queued turns that
    an interrupt ended. `interrupted`: the running turn, which was asked to stop. `mark`: the end of the last owner's
    log, if this call claimed the lease and that owner had released it.
    """

    turn: Turn
    duplicate: bool
    started: bool
    lease: Lease | None
    forgotten: tuple[Forgotten, ...] = ()
    cancelled: tuple[Turn, ...] = ()
    interrupted: Turn | None = None
    mark: LogMark | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed session: its lease, the turn that is marked as running, and the queued ones, in order.

    `running_for`: seconds since the start of the running turn, by the database's clock. `mark` as in `Accepted`.
    """

    lease: Lease
    running: Turn | None
    forgotten: tuple[Forgotten, ...]
    queued: tuple[Turn, ...]
    running_for: float = 0.0
    mark: LogMark | None = None


@dataclass(frozen=True, slots=True)
class OwnedWork:
    """The work of an owned session in the database: the queued turns, and the running one that is to be cancelled."""

    user_id: str
    waiting: frozenset[str]
    cancelled: str | None


@dataclass(frozen=True, slots=True)
class Started:
    """A turn that has just become the running one."""

    turn: Turn
    forgotten: tuple[Forgotten, ...]


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The end of an attempt. `text` is the whole (or partial) reply; `reason` says why a completed one has none.
    `steps` are its reasoning and tool calls, as on the wire.

    `carried`: the turns that later sends need not carry again, perhaps including this one. `sent_after`: seconds from
    the start to the last send; None if nothing was sent. `usage` is what the agent's service reported; `estimate` is
    its cost, if the run completed. `run_completed`: the run reported all its model calls, even if the turn failed
    because the reply had no readable text.
    """

    turn_id: str
    attempt: int
    status: Literal[TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED, TurnStatus.UNSENT]
    text: str
    usage: Usage | None = None
    estimate: Estimate | None = None
    sent_after: float | None = None
    error: TurnError | None = None
    carried: tuple[str, ...] = ()
    reason: str | None = None
    run_completed: bool = False
    steps: tuple[Json, ...] = ()


class SessionStore(Protocol):
    """Turns, their order, and leases: rows changed by compare-and-set functions, each one transaction."""

    async def claim(self, user_id: str, owner: str) -> Claim | None:
        """Claim or renew the session's lease. None: another owner's lease is still valid.

        Raises PlatformError(unauthorized) when the user was deleted.
        """
        ...

    async def renew(self, owner: str) -> dict[str, int]:
        """Renew all leases of this owner in one call. Returns user id → fence of those that are still held."""
        ...

    async def owned_work(self, owner: str) -> list[OwnedWork]:
        """Sessions of this owner with queued turns, or with a running turn that was asked to stop."""
        ...

    async def release(self, lease: Lease, mark: LogMark | None = None, *, unless_open: bool = False) -> bool:
        """Release the lease, so that the next owner need not wait for it to expire. Only the next owner gets `mark`.

        Returns False if the lease was not released, because turns are open and `unless_open` is True.
        """
        ...

    async def unowned_work(self, limit: int) -> list[str]:
        """Users with queued or running turns whose session has no owner."""
        ...

    async def accept(
        self, new: NewTurn, owner: str, *, start: bool, allowance: Allowance, overloaded: bool = False
    ) -> Accepted:
        """Store the message and its turn; claim a session without an owner; start the turn if none runs and `start`.

        The same client_message_id finds the same turn, so a call whose answer was lost may be repeated: the result is a
        duplicate. If the budget is used up, a new turn ends at once as `unsent`.

        Raises PlatformError(id_conflict | busy | queue_full | rate_limited | budget_exceeded | overloaded |
        account_blocked | unauthorized), and then nothing was stored; unauthorized: the user was deleted.
        """
        ...

    async def retry(
        self, user_id: str, turn_id: str, owner: str, *, start: bool, allowance: Allowance, overloaded: bool = False
    ) -> Accepted:
        """Queue an ended turn again as attempt + 1. If it is queued or running already, the result is a duplicate. If
        the budget is used up, it ends at once as `unsent`.

        Raises PlatformError(not_found | not_retryable | queue_full | rate_limited | budget_exceeded | overloaded |
        account_blocked | unauthorized), and then nothing was changed.
        """
        ...

    async def start(self, lease: Lease) -> Started | None:
        """Start the first queued turn. None: the queue is empty. Raises FencedError.

        If the budget is used up, that turn ends instead, and is returned as `unsent`.

        A turn that is running already is returned again, since the answer to the call that started it may be lost.
        """
        ...

    async def set_run(self, lease: Lease, turn_id: str, attempt: int, run_id: str) -> None:
        """Store the agent's run of the running attempt; ignored for any other attempt. Raises FencedError."""
        ...

    async def finish(self, lease: Lease, end: TurnEnd) -> Turn:
        """End the attempt: store its reply, and its estimate in the ledger. A second call only returns the row.

        Raises FencedError.
        """
        ...

    async def request_cancel(self, user_id: str, turn_id: str | None) -> Turn:
        """Request the end of a turn (without an id: the running one, else the first queued one).

        A queued turn is cancelled at once, without charge; a running one is marked. An ended turn does not change.
        Raises PlatformError(not_found).
        """
        ...

    async def open_turns(self, user_id: str) -> tuple[Turn | None, tuple[Turn, ...]]:
        """The running turn and the queued ones, with any owner of the session."""
        ...

    async def turn(self, user_id: str, turn_id: str) -> Turn | None: ...

    async def turn_by_run(self, user_id: str, run_id: str) -> Turn | None:
        """The turn of an agent's run, if it is ours. Its `run_id` differs if the run is of an earlier attempt."""
        ...

    async def closed_accounts(self, user_ids: Sequence[str]) -> list[str]:
        """Those of these users who are blocked, being deleted, or deleted."""
        ...

    async def redeem_ticket(self, ticket_id: str, expires_at: datetime) -> bool:
        """Redeem a ticket. Returns True the first time, False afterwards."""
        ...
