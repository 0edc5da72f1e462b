"""BillingGateway in memory: customers, their keys by value, and a price list that tests may change."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from pydantic import SecretStr

from server.ports import Budget, ModelCall, ModelPrice, Plan, SpendLog
from tests.fakes.database import Hook

GPT_4 = ModelPrice(Decimal("0.00003"), Decimal("0.00006"), Decimal("0.00003"))


@dataclass(slots=True)
class Customer:
    email: str
    plan: Plan
    spent: Decimal = Decimal(0)


@dataclass(slots=True)
class FakeBilling:
    """Implements `server.ports.BillingGateway`.

    `before` and `after` are awaited with the name of each operation, around its effect: one that raises is a service
    that was not reached, or whose answer was lost."""

    before: Hook | None = None
    after: Hook | None = None
    customers: dict[str, Customer] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    """The one key of each user, by user id."""
    registered: list[str] = field(default_factory=list)
    """Every key value ever registered that was not registered already."""
    prices: dict[str, ModelPrice] = field(default_factory=lambda: {"gpt-4": GPT_4})

    calls: list[ModelCall] = field(default_factory=list)
    """The log of every call made, with any key."""
    late: set[str] = field(default_factory=set)
    """Request ids of calls that are made, but not written yet."""
    clock: float = 0.0
    """Seconds that the gateway's clock, by which the calls are dated, is ahead of ours."""
    clock_error: float = 0.0

    async def ensure_customer(self, user_id: str, email: str, plan: Plan) -> None:
        await self._reached("ensure_customer")
        self.customers.setdefault(user_id, Customer(email, plan))
        await self._answered("ensure_customer")

    async def ensure_key(self, user_id: str, key: SecretStr) -> None:
        await self._reached("ensure_key")
        value = key.get_secret_value()
        if self.keys.get(user_id) != value:
            self.keys[user_id] = value
            self.registered.append(value)
        await self._answered("ensure_key")

    async def budget(self, user_id: str) -> Budget | None:
        await self._reached("budget")
        customer = self.customers.get(user_id)
        await self._answered("budget")
        return Budget(customer.plan.budget, customer.spent, customer.plan.period, None) if customer else None

    async def price(self, model: str) -> ModelPrice | None:
        await self._reached("price")
        price = self.prices.get(model)
        await self._answered("price")
        return price

    async def spend(self, key_hashes: Sequence[str], since: datetime, until: datetime) -> SpendLog:
        await self._reached("spend")
        asked_for = [
            call
            for call in self.calls
            if call.key_hash in key_hashes and since <= call.started_at <= until and call.request_id not in self.late
        ]
        asked_for.sort(key=lambda call: (call.started_at, call.request_id))
        await self._answered("spend")
        return SpendLog(tuple(asked_for), self.clock, self.clock_error)

    async def _reached(self, operation: str) -> None:
        if self.before is not None:
            await self.before(operation)

    async def _answered(self, operation: str) -> None:
        if self.after is not None:
            await self.after(operation)
