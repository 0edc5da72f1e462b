"""The contract of the log of model calls, tested on the fake and on a real LiteLLM."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import aiohttp
import pytest
from pydantic import SecretStr

from server.adapters.litellm.billing import LiteLLMBilling
from server.adapters.litellm.client import LiteLLMClient
from server.keyring import fingerprint
from server.protocol.codes import ErrorCode
from server.resilience import Breaker, Guard
from tests.contract.spending import GPT_4, LONG, FakeSpending, RealSpending, Spending, around_now, logged
from tests.fakes.billing import FakeBilling

ALMOST_NOTHING = Decimal("1e-12")
"""LiteLLM computes with binary floats: its costs may differ from the exact product in the fifteenth digit."""


@pytest.fixture(params=["fake", "real"])
async def spending(request: pytest.FixtureRequest) -> AsyncIterator[Spending]:
    if request.param == "fake":
        yield FakeSpending(FakeBilling())
        return
    env: dict[str, str] = request.getfixturevalue("stack_env")
    guard = Guard(Breaker("litellm", ErrorCode.LITELLM_UNAVAILABLE))
    async with aiohttp.ClientSession() as session:
        client = LiteLLMClient(env["LITELLM_BASE_URL"], SecretStr(env["LITELLM_MASTER_KEY"]), session, guard)
        yield RealSpending(LiteLLMBilling(client), env["LITELLM_BASE_URL"], session)


@pytest.fixture
async def key(spending: Spending) -> SecretStr:
    return await spending.new_key()


async def test_a_call_is_logged_with_what_it_used_and_cost(spending: Spending, key: SecretStr) -> None:
    used = await spending.call(key, "Hello")
    (call,) = await logged(spending, key, calls=1)
    assert used is not None
    assert (call.prompt_tokens, call.completion_tokens) == (used.prompt, used.completion)
    assert call.total_tokens == used.prompt + used.completion > 0
    assert (call.key_hash, call.model, call.outcome, call.price) == (fingerprint(key), "gpt-4", "success", GPT_4)
    assert call.is_charged
    assert call.started_at < call.ended_at
    cost = used.prompt * GPT_4.prompt + used.completion * GPT_4.completion
    assert abs(call.cost - cost) < ALMOST_NOTHING


async def test_cached_tokens_are_counted_and_cost_their_own_price(spending: Spending, key: SecretStr) -> None:
    await spending.call(key, "Hello", preface=LONG)
    used = await spending.call(key, "Hello again", preface=LONG)
    _, call = await logged(spending, key, calls=2)
    assert used is not None
    assert call.cached_tokens == used.cached > 0
    whole = (used.prompt - used.cached) * GPT_4.prompt + used.cached * GPT_4.cached
    assert abs(call.cost - whole - used.completion * GPT_4.completion) < ALMOST_NOTHING


async def test_reasoning_tokens_are_part_of_the_completion(spending: Spending, key: SecretStr) -> None:
    used = await spending.call(key, "REASON")
    (call,) = await logged(spending, key, calls=1)
    assert used is not None
    assert 0 < call.reasoning_tokens == used.reasoning <= call.completion_tokens


async def test_a_call_that_failed_is_logged_and_cost_nothing(spending: Spending, key: SecretStr) -> None:
    assert await spending.call(key, "ERR 500") is None
    (call,) = await logged(spending, key, calls=1)
    assert (call.outcome, call.cost, call.completion_tokens) == ("failure", Decimal(0), 0)
    assert not call.is_charged


async def test_only_calls_that_started_within_the_period_are_returned(spending: Spending, key: SecretStr) -> None:
    for text in ("one", "two", "three"):
        await spending.call(key, text)
    first, second, third = await logged(spending, key, calls=3)
    moment = timedelta(milliseconds=1)
    for since, until, within in (
        (first.started_at, third.started_at, (first, second, third)),
        (first.started_at + moment, third.started_at - moment, (second,)),
        (second.started_at, second.started_at, (second,)),
        (third.started_at + moment, third.started_at + timedelta(minutes=5), ()),
        (third.started_at, first.started_at, ()),
    ):
        assert (await spending.billing.spend([fingerprint(key)], since, until)).calls == within


async def test_calls_of_two_keys_are_returned_together_oldest_first(spending: Spending, key: SecretStr) -> None:
    other = await spending.new_key()
    for caller in (key, other, key):
        await spending.call(caller, "Hello")
    calls = await logged(spending, key, other, calls=3)
    assert [call.key_hash for call in calls] == [fingerprint(caller) for caller in (key, other, key)]
    assert len({call.request_id for call in calls}) == 3


async def test_no_call_of_another_key_is_returned(spending: Spending, key: SecretStr) -> None:
    other = await spending.new_key()
    await spending.call(other, "Hello")
    await spending.call(key, "Hello")
    await logged(spending, key, other, calls=2)
    (call,) = await logged(spending, key, calls=1)
    assert call.key_hash == fingerprint(key)


async def test_an_unused_key_has_no_calls(spending: Spending, key: SecretStr) -> None:
    assert (await spending.billing.spend([fingerprint(key)], *around_now())).calls == ()
    assert (await spending.billing.spend([], *around_now())).calls == ()


async def test_the_gateways_clock_is_within_the_error(spending: Spending, key: SecretStr) -> None:
    """The stack's LiteLLM shares our clock. While it is busy, its `Date` may be a second old."""
    for _ in range(20):
        log = await spending.billing.spend([fingerprint(key)], *around_now())
        if is_right := abs(log.clock) <= log.clock_error + 0.05:
            break
    assert is_right, (log.clock, log.clock_error)
    before = datetime.now(UTC)
    await spending.call(key, "Hello")
    (call,) = await logged(spending, key, calls=1)
    assert abs((call.started_at - before).total_seconds()) < 300
