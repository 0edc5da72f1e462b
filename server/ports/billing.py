"""Customers of the model gateway: their keys, budgets and prices. Money is in US dollars."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class Plan:
    """What a user may spend. `budget` in US dollars per `period` (`30d`, `1mo` …); None is unlimited."""

    budget: Decimal | None
    period: str | None


@dataclass(frozen=True, slots=True)
class Budget:
    """Where a user stands in the period, as LiteLLM (advisory, seconds late) sees it. US dollars."""

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


class BillingGateway(Protocol):
    """Customers, their keys and what they spend."""

    async def ensure_customer(self, user_id: str, email: str, plan: Plan) -> None:
        """Create the customer unless it exists."""
        ...

    async def ensure_key(self, user_id: str, key: SecretStr) -> None:
        """Make `key`, a value of ours, the user's key. Repeating it changes nothing."""
        ...

    async def budget(self, user_id: str) -> Budget | None:
        """None where the customer does not exist yet."""
        ...

    async def price(self, model: str) -> ModelPrice | None:
        """The price of a model as listed now. None: no price is listed."""
        ...
