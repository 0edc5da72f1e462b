"""Customers of the model gateway: their keys, plans, prices and spending. Money is in US dollars, unrounded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class Plan:
    """What a user may use; None is unlimited.

    `budget` in US dollars per `period` (`30d`, `1mo` …); tokens and requests per minute; names of the models.
    """

    budget: Decimal | None = None
    period: str | None = None
    tokens_per_minute: int | None = None
    requests_per_minute: int | None = None
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plans:
    """The named plans, and the name of the one that newly registered users get."""

    default: str
    named: Mapping[str, Plan]

    def of_new(self, name: str | None) -> tuple[str, Plan]:
        """The plan for a user who has none at the gateway: the one named, else the default one."""
        chosen = self.default if name is None or name not in self.named else name
        return chosen, self.named[chosen]


@dataclass(frozen=True, slots=True)
class Budget:
    """A user's budget and spending in the current period according to LiteLLM: advisory, seconds late. US dollars."""

    limit: Decimal | None
    spent: Decimal
    period: str | None
    resets_at: datetime | None


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """US dollars per token. `cached` is what a cached prompt token costs; the prompt price where none is listed."""

    prompt: Decimal
    completion: Decimal
    cached: Decimal


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One model call as the gateway charged it. `request_id` is the gateway's own, unique among all calls.

    `cost` in US dollars, with every digit the gateway wrote. Times are by the gateway's clock. `price` is the one the
    gateway listed when it charged the call; None if its log has none.
    """

    request_id: str
    key_hash: str
    model: str
    outcome: Literal["success", "failure"]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: Decimal
    price: ModelPrice | None
    started_at: datetime
    ended_at: datetime

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def is_charged(self) -> bool:
        """Whether it is charged: a refused call has the number of its prompt's tokens, but did not use them."""
        return self.outcome == "success" or self.cost > 0


@dataclass(frozen=True, slots=True)
class SpendLog:
    """The requested calls that the gateway has logged so far, oldest first.

    `clock`: how far its clock is ahead of ours, in seconds, plus or minus `clock_error`.
    """

    calls: tuple[ModelCall, ...]
    clock: float
    clock_error: float


KeyState = Literal["active", "blocked", "expired", "missing"]


class BillingGateway(Protocol):
    """Customers, their keys and what they spend."""

    async def ensure_customer(self, user_id: str, email: str, plan: Plan) -> None:
        """Create the customer with this plan unless it exists."""
        ...

    async def plan(self, user_id: str) -> Plan:
        """An existing customer's plan. Raises PlatformError(not_found)."""
        ...

    async def set_address(self, user_id: str, email: str) -> None:
        """Change an existing customer's e-mail address. Raises PlatformError(not_found)."""
        ...

    async def set_plan(self, user_id: str, plan: Plan) -> Budget:
        """Change an existing customer's plan, at once. Raises PlatformError(not_found)."""
        ...

    async def ensure_key(self, user_id: str, key: SecretStr) -> None:
        """Register `key`, a value of ours, as the user's key, and unblock it. Repeating it changes nothing.

        An older key of ours stays valid for ten minutes, so that running turns can complete.
        """
        ...

    async def block_other_keys(self, user_id: str, key: SecretStr) -> None:
        """Block every other key of ours for this user, effective at once, also during a turn."""
        ...

    async def delete_customer(self, user_id: str) -> None:
        """Delete the customer and every key of the customer, effective at once. Repeating it changes nothing."""
        ...

    async def key_state(self, key_hash: str) -> KeyState:
        """The state of a key, which is named by the SHA-256 hex of its value."""
        ...

    async def budget(self, user_id: str) -> Budget | None:
        """The customer's budget; None if the customer does not exist yet."""
        ...

    async def price(self, model: str) -> ModelPrice | None:
        """The price of a model as listed now. None: no price is listed."""
        ...

    async def spend(self, key_hashes: Sequence[str], since: datetime, until: datetime) -> SpendLog:
        """All calls made with these keys that started within this time, by the gateway's clock.

        Calls are logged when they have ended, and some seconds late.
        """
        ...
