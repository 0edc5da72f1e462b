"""The ledger: what every model call cost, a row each, and what is still to be looked for. Money is in US dollars."""

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
    """What the calls of an attempt are taken to have cost until the gateway's log says. `cost`, `price`: None where no
    price is known."""

    model: str
    cost: Decimal | None = None
    price: ModelPrice | None = None


@dataclass(frozen=True, slots=True)
class SentAttempt:
    """An attempt whose model calls are looked for. Times are by the database's clock; `ended_at` is None while it runs,
    `stopped_at` where it was not made to stop.

    `usage` is what the agent's service reported of it: of completed ones the sum over its calls.
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
    """A call that is in the ledger already, and whose it is there."""

    turn_id: str | None
    attempt: int | None
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Search:
    """Look for a user's calls: those that started after `since`, made with these keys.

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
    """A call to enter. `turn_id`, `attempt`: None for the agent's own housekeeping. `flag`: what is odd about it."""

    call: ModelCall
    turn_id: str | None
    attempt: int | None
    flag: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """An attempt whose calls are all there; `written_off`: whose estimate was never confirmed, and is not charged."""

    turn_id: str
    attempt: int
    flag: str | None = None
    written_off: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """What a search has found. Entering the same findings again changes nothing."""

    entries: tuple[LedgerEntry, ...] = ()
    settled: tuple[Settled, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnCharge:
    """What a turn is charged now."""

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
class Settlement:
    """What entering findings has changed: turns that are charged otherwise than before, and a warning that is due."""

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
    """A figure that should be the sum of its rows, and is not: `what` (`turn`, `message`, `day`) and `which` one."""

    what: str
    which: str
    stored: str
    derived: str


class Ledger(Protocol):
    """Rows that only the service role changes. Every method is one transaction."""

    async def due(self, limit: int) -> list[Search]:
        """Take users whose calls are due to be looked for. A search that fails comes again by itself, and elsewhere."""
        ...

    async def search(self, user_id: str, since: datetime) -> Search:
        """What to look for of one user, due or not."""
        ...

    async def settle(self, user_id: str, findings: Findings) -> Settlement:
        """Enter what was found. A call that is there keeps its turn, if any; one of another user is left alone."""
        ...

    async def remember_budget(self, user_id: str, budget: Budget) -> bool:
        """Take over what the gateway says of the user's budget. Whether it is used up."""
        ...

    async def rows(self, user_id: str, first: date, last: date) -> list[LedgerRow]:
        """The user's rows on these UTC days, both included, oldest first."""
        ...

    async def key_hashes(self, user_id: str) -> list[str]:
        """The hashes of all keys the user ever had."""
        ...

    async def deviations(self, user_id: str) -> list[Deviation]:
        """Turns, messages and days of the user that are not the sums of their rows. Should be empty."""
        ...

    async def users(self, after: str | None, limit: int) -> Sequence[str]:
        """Users who have ever had a turn or a budget, in the order of their ids; `after` is the last one seen."""
        ...
