"""The contract of BillingGateway, tested on the fake and on a real LiteLLM."""

import re
import secrets
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

import aiohttp
import pytest
from pydantic import SecretStr

from server.adapters.litellm.billing import LiteLLMBilling
from server.adapters.litellm.client import LiteLLMClient
from server.config.settings import BUDGET_PERIOD
from server.keyring import fingerprint
from server.ports import BillingGateway, Budget, Plan
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience import Breaker, Guard
from tests.fakes.billing import FakeBilling, Key

PLAN = Plan(Decimal("2.5"), "30d")


@pytest.fixture(params=["fake", "real"])
async def billing(request: pytest.FixtureRequest) -> AsyncIterator[BillingGateway]:
    if request.param == "fake":
        yield FakeBilling()
        return
    env: dict[str, str] = request.getfixturevalue("stack_env")
    guard = Guard(Breaker("litellm", ErrorCode.LITELLM_UNAVAILABLE))
    async with aiohttp.ClientSession() as session:
        master_key = SecretStr(env["LITELLM_MASTER_KEY"])
        yield LiteLLMBilling(LiteLLMClient(env["LITELLM_BASE_URL"], master_key, session, guard))


@pytest.fixture
def user_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def email(user_id: str) -> str:
    return f"{user_id}@example.com"


def new_key() -> SecretStr:
    return SecretStr("sk-" + secrets.token_urlsafe(32))


async def live_keys(billing: BillingGateway, user_id: str) -> dict[str, str]:
    """Until when each of the user's unblocked keys works, by hash: a moment, or `for good`."""
    if isinstance(billing, FakeBilling):
        found = [(name, key.expires, key.blocked) for name, key in billing.keys.items() if key.user_id == user_id]
        return {name: expires.isoformat() if expires else "for good" for name, expires, blocked in found if not blocked}
    rows = (await _litellm(billing).get("/user/info", {"user_id": user_id})).body["keys"]
    return {row["token"]: row["expires"] or "for good" for row in rows if not row["blocked"]}


async def tamper(billing: BillingGateway, how: Literal["block", "delete"], key: SecretStr) -> None:
    """Changes that an operator of the gateway makes by hand."""
    name = fingerprint(key)
    if not isinstance(billing, FakeBilling):
        body: dict[str, object] = {"key": name} if how == "block" else {"keys": [name]}
        assert (await _litellm(billing).post(f"/key/{how}", body)).ok
    elif how == "block":
        billing.keys[name].blocked = True
    else:
        del billing.keys[name]


async def make_by_hand(billing: BillingGateway, user_id: str, key: SecretStr) -> None:
    if isinstance(billing, FakeBilling):
        billing.keys[fingerprint(key)] = Key(key.get_secret_value(), user_id, alias=None)
        return
    body = {"key": key.get_secret_value(), "user_id": user_id, "key_alias": f"laptop of {user_id}"}
    assert (await _litellm(billing).post("/key/generate", body)).ok


def _litellm(billing: BillingGateway) -> LiteLLMClient:
    assert isinstance(billing, LiteLLMBilling)
    return billing._client


async def test_a_customer_has_the_budget_of_the_plan(billing: BillingGateway, user_id: str, email: str) -> None:
    await billing.ensure_customer(user_id, email, PLAN)
    budget = await billing.budget(user_id)
    assert budget is not None
    assert (budget.limit, budget.spent, budget.period) == (Decimal("2.5"), Decimal(0), "30d")


async def test_a_customer_without_a_plan_is_unlimited(billing: BillingGateway, user_id: str, email: str) -> None:
    await billing.ensure_customer(user_id, email, Plan(None, None))
    budget = await billing.budget(user_id)
    assert budget is not None
    assert budget.limit is None


async def address(billing: BillingGateway, user_id: str) -> str | None:
    if isinstance(billing, FakeBilling):
        return billing.customers[user_id].email
    found = (await _litellm(billing).get("/user/info", {"user_id": user_id})).body["user_info"]["user_email"]
    return None if found is None else str(found)


async def test_a_customers_address_changes_and_nothing_else(billing: BillingGateway, user_id: str, email: str) -> None:
    await billing.ensure_customer(user_id, email, PLAN)
    before = await billing.budget(user_id)
    for _ in range(2):
        await billing.set_address(user_id, f"new-{email}")
        assert await address(billing, user_id) == f"new-{email}"
    assert await billing.budget(user_id) == before


async def test_an_address_that_another_customer_has_is_set(billing: BillingGateway, user_id: str, email: str) -> None:
    """That of a user who was deleted."""
    other = str(uuid.uuid4())
    await billing.ensure_customer(user_id, email, PLAN)
    await billing.ensure_customer(other, f"other-{email}", PLAN)
    await billing.set_address(user_id, f"other-{email}")
    assert await address(billing, user_id) == f"other-{email}"


async def test_the_address_of_an_unknown_customer_creates_none(billing: BillingGateway, user_id: str) -> None:
    with pytest.raises(PlatformError) as refused:
        await billing.set_address(user_id, "ann@example.com")
    assert refused.value.code is ErrorCode.NOT_FOUND
    assert await billing.budget(user_id) is None


async def test_ensuring_a_customer_again_changes_nothing(billing: BillingGateway, user_id: str, email: str) -> None:
    await billing.ensure_customer(user_id, email, PLAN)
    await billing.ensure_customer(user_id, email, Plan(Decimal(9), "1d"))
    budget = await billing.budget(user_id)
    assert budget is not None
    assert budget.limit == Decimal("2.5")


async def test_two_customers_may_have_one_address(billing: BillingGateway, user_id: str, email: str) -> None:
    other = str(uuid.uuid4())
    await billing.ensure_customer(user_id, email, PLAN)
    await billing.ensure_customer(other, email, PLAN)
    assert await billing.budget(other) is not None


async def test_an_unknown_customer_has_no_budget(billing: BillingGateway, user_id: str) -> None:
    assert await billing.budget(user_id) is None


async def test_a_plan_is_changed_at_once_and_the_new_budget_returned(
    billing: BillingGateway, user_id: str, email: str
) -> None:
    await billing.ensure_customer(user_id, email, Plan())
    changed = await billing.set_plan(user_id, Plan(Decimal("0.000123456789"), "1d", 900, 30, ("gpt-4",)))
    assert (changed.limit, changed.spent, changed.period) == (Decimal("0.000123456789"), Decimal(0), "1d")
    assert changed.resets_at is not None
    assert await billing.budget(user_id) == changed


async def test_a_plan_without_limits_removes_them(billing: BillingGateway, user_id: str, email: str) -> None:
    await billing.ensure_customer(user_id, email, Plan(Decimal("2.5"), "30d", 900, 30, ("gpt-4",)))
    assert await billing.set_plan(user_id, Plan()) == Budget(None, Decimal(0), None, None)


async def test_a_changed_budget_does_not_restart_its_period(billing: BillingGateway, user_id: str, email: str) -> None:
    await billing.ensure_customer(user_id, email, PLAN)
    before = await billing.budget(user_id)
    assert before is not None
    changed = await billing.set_plan(user_id, replace(PLAN, budget=Decimal(7)))
    assert (changed.limit, changed.resets_at) == (Decimal(7), before.resets_at)


@pytest.mark.parametrize("period", ["10m", "5h", "1d", "90d", "1mo"])
async def test_every_kind_of_period_is_accepted(billing: BillingGateway, user_id: str, email: str, period: str) -> None:
    assert re.fullmatch(BUDGET_PERIOD, period)
    await billing.ensure_customer(user_id, email, Plan(Decimal(1), "30d"))
    assert (await billing.set_plan(user_id, Plan(Decimal(1), period))).period == period


async def test_setting_the_plan_of_an_unknown_customer_is_not_found_and_creates_none(
    billing: BillingGateway, user_id: str
) -> None:
    with pytest.raises(PlatformError) as raised:
        await billing.set_plan(user_id, PLAN)
    assert raised.value.code is ErrorCode.NOT_FOUND
    assert await billing.budget(user_id) is None


async def test_ensuring_a_key_may_be_repeated(billing: BillingGateway, user_id: str, email: str) -> None:
    await billing.ensure_customer(user_id, email, PLAN)
    key = new_key()
    assert await billing.key_state(fingerprint(key)) == "missing"
    for _ in range(3):
        await billing.ensure_key(user_id, key)
        assert await billing.key_state(fingerprint(key)) == "active"
    assert await live_keys(billing, user_id) == {fingerprint(key): "for good"}


async def test_a_replaced_key_stays_valid_for_a_while(billing: BillingGateway, user_id: str, email: str) -> None:
    await billing.ensure_customer(user_id, email, PLAN)
    first, second = new_key(), new_key()
    await billing.ensure_key(user_id, first)
    await billing.ensure_key(user_id, second)
    assert await billing.key_state(fingerprint(first)) == "active"
    retiring = await live_keys(billing, user_id)
    assert retiring[fingerprint(second)] == "for good"
    assert timedelta(minutes=8) < datetime.fromisoformat(retiring[fingerprint(first)]) - datetime.now(UTC)
    assert datetime.fromisoformat(retiring[fingerprint(first)]) - datetime.now(UTC) < timedelta(minutes=12)
    await billing.ensure_key(user_id, second)
    assert await live_keys(billing, user_id) == retiring, "a repetition must not let the old key live longer"


async def test_ensuring_an_expiring_key_removes_its_expiry(billing: BillingGateway, user_id: str, email: str) -> None:
    await billing.ensure_customer(user_id, email, PLAN)
    first, second = new_key(), new_key()
    for key in (first, second, first):
        await billing.ensure_key(user_id, key)
    keys = await live_keys(billing, user_id)
    assert keys[fingerprint(first)] == "for good" != keys[fingerprint(second)]


async def test_a_replaced_key_can_be_blocked_at_once(billing: BillingGateway, user_id: str, email: str) -> None:
    await billing.ensure_customer(user_id, email, PLAN)
    leaked, fresh = new_key(), new_key()
    await billing.ensure_key(user_id, leaked)
    await billing.ensure_key(user_id, fresh)
    await billing.block_other_keys(user_id, fresh)
    await billing.block_other_keys(user_id, fresh)
    assert await billing.key_state(fingerprint(leaked)) == "blocked"
    assert await billing.key_state(fingerprint(fresh)) == "active"


async def test_a_blocked_key_is_unblocked_and_a_deleted_one_registered_again(
    billing: BillingGateway, user_id: str, email: str
) -> None:
    await billing.ensure_customer(user_id, email, PLAN)
    key = new_key()
    await billing.ensure_key(user_id, key)
    await tamper(billing, "block", key)
    assert await billing.key_state(fingerprint(key)) == "blocked"
    await billing.ensure_key(user_id, key)
    assert await billing.key_state(fingerprint(key)) == "active"
    await tamper(billing, "delete", key)
    assert await billing.key_state(fingerprint(key)) == "missing"
    await billing.ensure_key(user_id, key)
    assert await billing.key_state(fingerprint(key)) == "active"


async def test_a_key_made_by_hand_does_not_change(billing: BillingGateway, user_id: str, email: str) -> None:
    await billing.ensure_customer(user_id, email, PLAN)
    by_hand, ours = new_key(), new_key()
    await make_by_hand(billing, user_id, by_hand)
    await billing.ensure_key(user_id, ours)
    await billing.block_other_keys(user_id, ours)
    assert await live_keys(billing, user_id) == {fingerprint(by_hand): "for good", fingerprint(ours): "for good"}


async def test_the_agents_model_has_a_price(billing: BillingGateway) -> None:
    price = await billing.price("gpt-4")
    assert price is not None
    assert 0 < price.cached <= price.prompt < price.completion


async def test_an_unlisted_model_has_none(billing: BillingGateway) -> None:
    assert await billing.price(f"no-such-model-{uuid.uuid4()}") is None


async def test_a_deleted_customer_leaves_no_key_and_may_come_again(
    billing: BillingGateway, user_id: str, email: str
) -> None:
    ours, by_hand = new_key(), new_key()
    for _ in range(2):
        await billing.ensure_customer(user_id, email, PLAN)
        await billing.ensure_key(user_id, ours)
    await make_by_hand(billing, user_id, by_hand)
    for _ in range(2):
        await billing.delete_customer(user_id)
    assert await billing.budget(user_id) is None
    assert [await billing.key_state(fingerprint(key)) for key in (ours, by_hand)] == ["missing", "missing"]
    await billing.ensure_customer(other := str(uuid.uuid4()), email, PLAN)
    assert await billing.budget(other) is not None
