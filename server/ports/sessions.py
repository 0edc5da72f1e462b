"""Turns, their order and who may run them. PostgreSQL is the truth: every method is one transaction there."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from server.ports.ledger import Estimate
from server.protocol.limits import Allowance
from server.protocol.shapes import OnBusy, Turn, TurnError, TurnStatus, Usage


class FencedError(Exception):
    """This instance no longer holds the user's session: somebody else took the lease. Stop at once, change nothing."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a user's turns: valid while `fence` is the newest for that user."""

    user_id: str
    owner: str
    fence: int


@dataclass(frozen=True, slots=True)
class LogMark:
    """Where the event log of a session stopped when its owner released the lease: nothing was appended after it."""

    epoch: str
    head: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A turn the agent does not remember because it failed or was cancelled: what to tell it with the next send."""

    turn_id: str
    user_text: str
    partial_reply: str


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A message as its sender gave it. `content_hash` is the SHA-256 hex of the content."""

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

    `started`: the turn is running now, owned by `lease`, and `forgotten` goes with it. `cancelled`: waiting turns that
    an interrupt ended. `interrupted`: the running turn that was asked to stop. `mark`: where the last owner's log
    stopped, where this call took the lease and that owner had released it.
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
    """A session taken over: its lease, the turn that was left running, and those that wait, in order.

    `running_for`: seconds, by the database's clock, since the running one was started. `mark` as in `Accepted`.
    """

    lease: Lease
    running: Turn | None
    forgotten: tuple[Forgotten, ...]
    queued: tuple[Turn, ...]
    running_for: float = 0.0
    mark: LogMark | None = None


@dataclass(frozen=True, slots=True)
class OwnedWork:
    """What the rows of one's own session ask for: the turns that wait, and the running one that is to be cancelled."""

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
    """How an attempt ended. `text` is the whole (or partial) reply; `reason` says why a completed one has none.

    `carried` are the turns that the agent need not be told of again, which may be this one. `sent_after`: seconds from
    its start to its being sent, for the last time; None where it never was. `usage` is what the agent's service
    reported; `estimate` what that costs, where the run completed. `run_completed`: it did, and so reported all its
    model calls, also where nobody could read anything of it.
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


class SessionStore(Protocol):
    """Turns, their order and who may run them: rows changed by compare-and-set functions, each one transaction."""

    async def claim(self, user_id: str, owner: str) -> Claim | None:
        """Take or renew the session. None: another owner's lease is still valid.

        Raises PlatformError(unauthorized) when the user was deleted.
        """
        ...

    async def renew(self, owner: str) -> dict[str, int]:
        """Heartbeat every session of this owner in one call. Returns user id → fence of those still held."""
        ...

    async def owned_work(self, owner: str) -> list[OwnedWork]:
        """Sessions of this owner with turns that wait, or a running turn that was asked to stop."""
        ...

    async def release(self, lease: Lease, mark: LogMark | None = None, *, unless_open: bool = False) -> bool:
        """Give the session up, so that another owner need not wait for the lease to expire. The next owner is given
        `mark`, if no other comes in between.

        Returns False if the lease is kept, because turns are open and `unless_open` was asked for.
        """
        ...

    async def unowned_work(self, limit: int) -> list[str]:
        """Users with queued or running turns whose session nobody holds."""
        ...

    async def accept(
        self, new: NewTurn, owner: str, *, start: bool, allowance: Allowance, overloaded: bool = False
    ) -> Accepted:
        """Store the message and its turn; claim the session if it is free; start the turn if nothing runs and `start`.

        The same client_message_id attaches to the same turn, so that a call whose answer was lost may be repeated: it
        then answers as a duplicate. Where the budget is used up, a new turn ends at once as `unsent`.

        Raises PlatformError(id_conflict | busy | queue_full | rate_limited | budget_exceeded | overloaded |
        account_blocked | unauthorized), and then nothing was stored; unauthorized: the user was deleted.
        """
        ...

    async def retry(
        self, user_id: str, turn_id: str, owner: str, *, start: bool, allowance: Allowance, overloaded: bool = False
    ) -> Accepted:
        """Queue an ended turn again as attempt + 1. A turn already queued or running again answers as a duplicate.
        Where the budget is used up, it ends at once as `unsent`.

        Raises PlatformError(not_found | not_retryable | queue_full | rate_limited | budget_exceeded | overloaded |
        account_blocked | unauthorized), and then nothing was changed.
        """
        ...

    async def start(self, lease: Lease) -> Started | None:
        """Make the first waiting turn the running one. None: nothing waits. Raises FencedError.

        Where the budget is used up, that turn ends instead, and is returned as `unsent`.

        A turn that runs already is returned again: the answer to the call that started it was lost.
        """
        ...

    async def set_run(self, lease: Lease, turn_id: str, attempt: int, run_id: str) -> None:
        """Remember the agent's run of the running attempt; of any other it is ignored. Raises FencedError."""
        ...

    async def finish(self, lease: Lease, end: TurnEnd) -> Turn:
        """End the attempt: assistant message, estimate in the ledger. A second call only returns the row.

        Raises FencedError.
        """
        ...

    async def request_cancel(self, user_id: str, turn_id: str | None) -> Turn:
        """Ask for the end of a turn (the running one, else the first waiting one, when no id is given).

        A waiting turn is cancelled at once, at no charge; a running one is marked. An ended turn is returned as it is.
        Raises PlatformError(not_found).
        """
        ...

    async def open_turns(self, user_id: str) -> tuple[Turn | None, tuple[Turn, ...]]:
        """The running turn and the waiting ones, whoever owns the session."""
        ...

    async def turn(self, user_id: str, turn_id: str) -> Turn | None: ...

    async def turn_by_run(self, user_id: str, run_id: str) -> Turn | None:
        """The turn that a run of the agent belongs to, if any of ours. An earlier attempt's run is not its `run_id`."""
        ...

    async def closed_accounts(self, user_ids: Sequence[str]) -> list[str]:
        """Which of these users are blocked, being deleted, or gone."""
        ...

    async def redeem_ticket(self, ticket_id: str, expires_at: datetime) -> bool:
        """True the first time a ticket is shown, False ever after."""
        ...

    async def is_signed_in(self, user_id: str, session_id: str) -> bool:
        """Whether this sign-in of the user still stands: neither signed out, nor expired, nor banned."""
        ...
