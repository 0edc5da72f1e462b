"""BillingGateway in memory: customers and plans, keys that expire and are blocked, prices that tests may change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from pydantic import SecretStr

from server.keyring import fingerprint
from server.ports import Budget, KeyState, ModelCall, ModelPrice, Plan, SpendLog
from server.ports.schedule import KEY_OVERLAP
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.database import Hook

GPT_4 = ModelPrice(Decimal("0.00003"), Decimal("0.00006"), Decimal("0.00003"))


@dataclass(slots=True)
class Customer:
    email: str
    plan: Plan
    spent: Decimal = Decimal(0)
    resets_at: datetime | None = None


@dataclass(slots=True)
class Key:
    """`alias` is None for a key that an operator made by hand."""

    value: str
    user_id: str
    alias: str | None
    expires: datetime | None = None
    blocked: bool = False


@dataclass(slots=True)
class FakeBilling:
    """Implements `server.ports.BillingGateway`.

    `before` and `after` are awaited with the name of each operation, around its effect: if `before` raises, the service
    was not reached; if `after` raises, its answer was lost."""

    before: Hook | None = None
    after: Hook | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    customers: dict[str, Customer] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    """All keys by their hashes."""
    registered: list[str] = field(default_factory=list)
    """The values of all keys in the order of their first registration."""
    prices: dict[str, ModelPrice] = field(default_factory=lambda: {"gpt-4": GPT_4})

    calls: list[ModelCall] = field(default_factory=list)
    """The log of every call made, with any key."""
    late: set[str] = field(default_factory=set)
    """Request ids of calls that were made but are not logged yet."""
    clock_ahead: float = 0.0
    """Seconds that the gateway's clock, by which the calls are dated, is ahead of ours."""
    clock_error: float = 0.0
    read_since: list[datetime] = field(default_factory=list)
    """The beginning of each period of the log that was read."""

    def key_of(self, user_id: str) -> str:
        """The value of the user's one key that neither expires nor is blocked. Raises ValueError unless there is
        exactly one."""
        (only,) = [key.value for key in self._ours(user_id) if key.expires is None and not key.blocked]
        return only

    async def ensure_customer(self, user_id: str, email: str, plan: Plan) -> None:
        await self._reached("ensure_customer")
        if user_id not in self.customers:
            self.customers[user_id] = Customer(email, plan)
            self._begin_period(self.customers[user_id])
        await self._answered("ensure_customer")

    async def plan(self, user_id: str) -> Plan:
        await self._reached("plan")
        customer = self.customers.get(user_id)
        await self._answered("plan")
        if customer is None:
            raise PlatformError(ErrorCode.NOT_FOUND)
        return customer.plan

    async def set_address(self, user_id: str, email: str) -> None:
        await self._reached("set_address")
        customer = self.customers.get(user_id)
        if customer is None:
            raise PlatformError(ErrorCode.NOT_FOUND)
        customer.email = email
        await self._answered("set_address")

    async def set_plan(self, user_id: str, plan: Plan) -> Budget:
        await self._reached("set_plan")
        customer = self.customers.get(user_id)
        if customer is None:
            raise PlatformError(ErrorCode.NOT_FOUND)
        period_changed = plan.period != customer.plan.period
        customer.plan = plan
        if period_changed:
            self._begin_period(customer)
        await self._answered("set_plan")
        return _standing(customer)

    async def ensure_key(self, user_id: str, key: SecretStr) -> None:
        await self._reached("ensure_key")
        value, name = key.get_secret_value(), fingerprint(key)
        if name not in self.keys:
            self.keys[name] = Key(value, user_id, f"user {user_id} {name[:12]}")
            self.registered.append(value)
        self.keys[name].blocked, self.keys[name].expires = False, None
        for other in self._ours(user_id):
            if other.value != value and other.expires is None:
                other.expires = self.clock() + KEY_OVERLAP
        await self._answered("ensure_key")

    async def block_other_keys(self, user_id: str, key: SecretStr) -> None:
        await self._reached("block_other_keys")
        for other in self._ours(user_id):
            other.blocked = other.blocked or other.value != key.get_secret_value()
        await self._answered("block_other_keys")

    async def delete_customer(self, user_id: str) -> None:
        await self._reached("delete_customer")
        self.customers.pop(user_id, None)
        self.keys = {name: key for name, key in self.keys.items() if key.user_id != user_id}
        await self._answered("delete_customer")

    async def key_state(self, key_hash: str) -> KeyState:
        await self._reached("key_state")
        key = self.keys.get(key_hash)
        await self._answered("key_state")
        if key is None:
            return "missing"
        if key.blocked:
            return "blocked"
        return "expired" if key.expires is not None and key.expires <= self.clock() else "active"

    async def budget(self, user_id: str) -> Budget | None:
        await self._reached("budget")
        customer = self.customers.get(user_id)
        await self._answered("budget")
        return _standing(customer) if customer else None

    async def price(self, model: str) -> ModelPrice | None:
        await self._reached("price")
        price = self.prices.get(model)
        await self._answered("price")
        return price

    async def spend(self, key_hashes: Sequence[str], since: datetime, until: datetime) -> SpendLog:
        await self._reached("spend")
        self.read_since.append(since)
        asked_for = [
            call
            for call in self.calls
            if call.key_hash in key_hashes and since <= call.started_at <= until and call.request_id not in self.late
        ]
        asked_for.sort(key=lambda call: (call.started_at, call.request_id))
        await self._answered("spend")
        return SpendLog(tuple(asked_for), self.clock_ahead, self.clock_error)

    def _ours(self, user_id: str) -> list[Key]:
        return [key for key in self.keys.values() if key.user_id == user_id and key.alias is not None]

    def _begin_period(self, customer: Customer) -> None:
        """Set the end of the period, simplified: LiteLLM ends periods at midnight or on the first of a month."""
        customer.resets_at = self.clock() + timedelta(days=1) if customer.plan.period else None

    async def _reached(self, operation: str) -> None:
        if self.before is not None:
            await self.before(operation)

    async def _answered(self, operation: str) -> None:
        if self.after is not None:
            await self.after(operation)


def _standing(customer: Customer) -> Budget:
    return Budget(customer.plan.budget, customer.spent, customer.plan.period, customer.resets_at)
