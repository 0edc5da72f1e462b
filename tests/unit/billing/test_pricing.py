"""The exact estimate of a turn's cost, and a cached price that is used while LiteLLM is unavailable."""

import asyncio
from decimal import Decimal

import pytest

from server.billing.pricing import Pricing, charge
from server.ports import Estimate, ModelPrice
from server.ports.schedule import PRICE_FRESH, PRICE_RETRY, PRICE_TIMEOUT
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Usage
from tests.fakes.billing import GPT_4, FakeBilling
from tests.virtual_time import virtual_time

MINI = ModelPrice(Decimal("1.5E-7"), Decimal("6E-7"), Decimal("7.5E-8"))


@pytest.mark.parametrize(
    ("usage", "price", "cost"),
    [
        (Usage(prompt_tokens=100, completion_tokens=20), GPT_4, "0.0042"),
        (Usage(prompt_tokens=100, completion_tokens=20, cached_tokens=40), GPT_4, "0.0042"),
        (Usage(prompt_tokens=100, completion_tokens=20, cached_tokens=40), MINI, "0.000024"),
        (Usage(prompt_tokens=100, completion_tokens=20, reasoning_tokens=15), GPT_4, "0.0042"),
        (Usage(prompt_tokens=10, cached_tokens=40), MINI, "0.00000075"),
        (Usage(), GPT_4, "0"),
    ],
)
def test_the_estimate_is_what_litellm_charges(usage: Usage, price: ModelPrice, cost: str) -> None:
    assert charge(usage, price) == Decimal(cost)


def test_a_million_estimates_add_up_exactly() -> None:
    assert charge(Usage(prompt_tokens=1), MINI) * 1_000_000 == Decimal("0.15")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_price_is_cached_until_it_expires() -> None:
    billing, clock = FakeBilling(), Clock()
    pricing = Pricing(billing, "gpt-4", clock)
    assert await asyncio.gather(*(pricing.price() for _ in range(5))) == [GPT_4] * 5
    billing.prices["gpt-4"] = MINI
    clock.now = PRICE_FRESH.total_seconds() - 1
    assert await pricing.price() == GPT_4
    clock.now = PRICE_FRESH.total_seconds()
    assert await pricing.price() == MINI


async def test_concurrent_callers_share_one_request() -> None:
    asked = 0

    async def before(_: str) -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)

    pricing = Pricing(FakeBilling(before=before), "gpt-4")
    await asyncio.gather(*(pricing.price() for _ in range(10)))
    assert asked == 1


async def test_an_expired_price_is_used_during_an_outage() -> None:
    billing, clock = FakeBilling(), Clock()
    pricing = Pricing(billing, "gpt-4", clock)
    await pricing.price()

    async def unavailable(_: str) -> None:
        raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)

    billing.before, clock.now = unavailable, PRICE_FRESH.total_seconds()
    assert await pricing.price() == GPT_4
    billing.before = None
    billing.prices["gpt-4"] = MINI
    clock.now += PRICE_RETRY.total_seconds()
    assert await pricing.price() == MINI


async def test_without_a_price_the_estimate_has_no_cost() -> None:
    usage = Usage(prompt_tokens=5)
    assert await Pricing(FakeBilling(), "a-free-model").estimate(usage) == Estimate("a-free-model")
    assert await Pricing(FakeBilling(), "gpt-4").estimate(usage) == Estimate("gpt-4", Decimal("0.00015"), GPT_4)


@virtual_time
async def test_a_price_that_does_not_arrive_delays_turns_by_its_timeout_only() -> None:
    async def never(_: str) -> None:
        await asyncio.Event().wait()

    clock = asyncio.get_running_loop().time
    pricing = Pricing(FakeBilling(before=never), "gpt-4", clock)
    began = clock()
    estimates = await asyncio.gather(*(pricing.estimate(Usage(prompt_tokens=5)) for _ in range(10)))
    assert estimates == [Estimate("gpt-4")] * 10
    assert clock() - began == PRICE_TIMEOUT.total_seconds()
