"""What the core may rely on in a BillingGateway, shown on the fake and on a real LiteLLM."""

import secrets
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal

import aiohttp
import pytest
from pydantic import SecretStr

from server.litellm_adapter.billing import LiteLLMBilling
from server.litellm_adapter.client import LiteLLMClient
from server.ports import BillingGateway, Plan
from server.protocol.codes import ErrorCode
from server.resilience import Breaker, Guard
from tests.fakes.billing import FakeBilling

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


async def test_ensuring_a_key_may_be_repeated(billing: BillingGateway, user_id: str, email: str) -> None:
    await billing.ensure_customer(user_id, email, PLAN)
    key = new_key()
    await billing.ensure_key(user_id, key)
    await billing.ensure_key(user_id, key)


async def test_another_key_replaces_the_first(billing: BillingGateway, user_id: str, email: str) -> None:
    await billing.ensure_customer(user_id, email, PLAN)
    await billing.ensure_key(user_id, new_key())
    second = new_key()
    await billing.ensure_key(user_id, second)
    await billing.ensure_key(user_id, second)


async def test_the_agents_model_has_a_price(billing: BillingGateway) -> None:
    price = await billing.price("gpt-4")
    assert price is not None
    assert 0 < price.cached <= price.prompt < price.completion


async def test_an_unlisted_model_has_none(billing: BillingGateway) -> None:
    assert await billing.price(f"no-such-model-{uuid.uuid4()}") is None
