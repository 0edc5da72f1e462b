"""The ledger: one row per model call with its cost, and the searches that are due. Money is in US dollars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, Protocol

from server.ports.billing import Budget, ModelCall, ModelPrice
from server.protocol.shapes import CostStatus, TurnStatus, Usage

EntryStatus = Literal["estimated", "settled", "written_off"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated cost of an attempt's calls, until the gateway has logged them. `cost`, `price`: None if no price is
    known."""

    model: str
    cost: Decimal | None = None
    price: ModelPrice | None = None


@dataclass(frozen=True, slots=True)
class SentAttempt:
    """An attempt whose model calls are searched for. Times are by the database's clock; `ended_at` is None while it
    runs, `stopped_at` if it was not stopped.

    `usage` is what the agent's service reported: for completed attempts the sum over their calls.
    """

    turn_id: str
    attempt: int
    sent_at: datetime
    ended_at: datetime | None
    outcome: TurnStatus | None
    usage: Usage | None
    is_settled: bool
    stopped_at: datetime | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.turn_id, self.attempt


@dataclass(frozen=True, slots=True)
class KnownCall:
    """A call that is in the ledger already, with the attempt that it is attributed to."""

    turn_id: str | None
    attempt: int | None
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Search:
    """A search for a user's calls: those that started after `since` and were made with these keys.

    `attempts`: in order, from the last one sent before `since`. `known`: by request id. `now` is the database's time.
    """

    user_id: str
    since: datetime
    now: datetime
    key_hashes: tuple[str, ...]
    attempts: tuple[SentAttempt, ...]
    known: Mapping[str, KnownCall]


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A call to enter. `turn_id`, `attempt`: None for the agent's housekeeping. `flag`: why it is not confirmed."""

    call: ModelCall
    turn_id: str | None
    attempt: int | None
    flag: str | None = None


@dataclass(frozen=True, slots=True)
class SettledAttempt:
    """An attempt whose calls are all logged; `written_off`: its estimate was not confirmed and is not charged."""

    turn_id: str
    attempt: int
    flag: str | None = None
    written_off: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a search. Entering the same findings again changes nothing."""

    entries: tuple[LedgerEntry, ...] = ()
    settled: tuple[SettledAttempt, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnCharge:
    """What a turn is charged after a change."""

    turn_id: str
    attempt: int
    usage: Usage | None
    cost: Decimal | None
    cost_status: CostStatus | None


@dataclass(frozen=True, slots=True)
class BudgetWarning:
    """The user has reached `level` per cent of the budget. US dollars."""

    spent: Decimal
    limit: Decimal
    level: int


@dataclass(frozen=True, slots=True)
class LedgerChanges:
    """What entering findings has changed: turns whose charge differs from before, and a warning that is due."""

    turns: tuple[TurnCharge, ...] = ()
    warning: BudgetWarning | None = None


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A row of the ledger, as an audit reads it."""

    request_id: str
    turn_id: str | None
    status: EntryStatus
    outcome: Literal["success", "failure"]
    model: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: Decimal | None
    started_at: datetime
    flag: str | None


@dataclass(frozen=True, slots=True)
class Deviation:
    """A figure that differs from the sum of its rows: `what` (`turn`, `message`, `day`) and `which` one."""

    what: str
    which: str
    stored: str
    derived: str


class Ledger(Protocol):
    """Rows that only the service role changes. Every method is one transaction."""

    async def due(self, limit: int) -> list[Search]:
        """Claim searches that are due. One that fails becomes due again, for any instance."""
        ...

    async def search(self, user_id: str, since: datetime) -> Search:
        """The search for one user's calls, due or not."""
        ...

    async def enter(self, user_id: str, findings: Findings) -> LedgerChanges:
        """Enter the findings. A call in the ledger keeps its turn, if any; a call of another user does not change."""
        ...

    async def store_budget(self, user_id: str, budget: Budget) -> bool:
        """Store the gateway's limit and period of the user's budget. Returns True if the budget is used up."""
        ...

    async def rows(self, user_id: str, first: date, last: date) -> list[LedgerRow]:
        """The user's rows on these UTC days, both included, oldest first."""
        ...

    async def key_hashes(self, user_id: str) -> list[str]:
        """The hashes of all keys the user ever had."""
        ...

    async def deviations(self, user_id: str) -> list[Deviation]:
        """Turns, messages and days of the user that differ from the sums of their rows. Should be empty."""
        ...

    async def users(self, after: str | None, limit: int) -> Sequence[str]:
        """Users who have ever had a turn or a budget, in the order of their ids; `after` is the last one seen."""
        ...
