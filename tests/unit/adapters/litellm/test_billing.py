"""Customers, plans, budgets and prices, with answers that are worded like those of LiteLLM 1.106."""

from collections.abc import MutableMapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from server.adapters.litellm.billing import LiteLLMBilling
from server.ports import Budget, ModelPrice, Plan
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.unit.adapters.litellm.scripted import MASTER_KEY, ScriptedLiteLLM, error

KEY = SecretStr("sk-a-value-of-our-own")
UNLIMITED = Plan(None, None)
ID_EXISTS = (409, error("{'error': 'User with id ann already exists'}"))
EMAIL_EXISTS = (409, error("{'error': 'User with email ann@example.com already exists'}"))
NO_SUCH_USER = (404, error("User ann not found"))
ANN = {"user_id": "ann", "user_info": {"user_id": "ann", "max_budget": None, "spend": 0.0}}


async def test_a_customer_is_created_with_the_plan_and_without_a_key(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/user/new", (200, {"user_id": "ann"}))
    await billing.ensure_customer("ann", "ann@example.com", Plan(Decimal("2.50"), "30d"))
    (asked,) = service.asked
    assert asked.body == {
        "user_id": "ann", "auto_create_key": False, "max_budget": 2.5, "budget_duration": "30d",
        "user_email": "ann@example.com",
    }  # fmt: skip
    assert asked.authorization == f"Bearer {MASTER_KEY}"


async def test_without_a_plan_no_limit_is_sent(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/user/new", (200, {"user_id": "ann"}))
    await billing.ensure_customer("ann", "ann@example.com", UNLIMITED)
    assert service.asked[0].body == {"user_id": "ann", "auto_create_key": False, "user_email": "ann@example.com"}


async def test_an_existing_customer_does_not_change(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/user/new", ID_EXISTS)
    service.says("/user/info", (200, ANN))
    await billing.ensure_customer("ann", "ann@example.com", UNLIMITED)
    assert [asked.path for asked in service.asked] == ["/user/new", "/user/info"]


async def test_a_customer_whose_address_is_taken_is_created_without_it(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/user/new", EMAIL_EXISTS, (200, {"user_id": "ann"}))
    service.says("/user/info", NO_SUCH_USER)
    await billing.ensure_customer("ann", "ann@example.com", UNLIMITED)
    assert service.asked[-1].body == {"user_id": "ann", "auto_create_key": False}


async def test_a_refused_plan_is_a_permanent_error(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/user/new", (400, error("budget_duration is invalid")))
    with pytest.raises(PlatformError) as raised:
        await billing.ensure_customer("ann", "ann@example.com", Plan(Decimal(1), "1y"))
    assert not raised.value.retryable
    assert "budget_duration" not in raised.value.message


FULL = Plan(Decimal("2.5"), "30d", 9000, 20, ("gpt-4", "mini"))
ROW = {"user_id": "ann", "max_budget": 2.5, "budget_duration": "30d", "tpm_limit": 9000, "rpm_limit": 20,
       "models": ["gpt-4", "mini"], "spend": 0.5, "budget_reset_at": "2026-12-01T00:00:00Z"}  # fmt: skip


async def test_a_customer_is_created_with_every_limit_of_the_plan(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/user/new", (200, {"user_id": "ann"}))
    await billing.ensure_customer("ann", "ann@example.com", FULL)
    assert service.asked[0].body == {
        "user_id": "ann", "auto_create_key": False, "user_email": "ann@example.com", "max_budget": 2.5,
        "budget_duration": "30d", "tpm_limit": 9000, "rpm_limit": 20, "models": ["gpt-4", "mini"],
    }  # fmt: skip


async def test_only_changed_fields_of_a_plan_are_sent(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/user/info", (200, {"user_info": ROW}), (200, {"user_info": ROW | {"max_budget": 7.25}}))
    service.says("/user/update", (200, {}))
    budget = await billing.set_plan("ann", replace(FULL, budget=Decimal("7.25")))
    assert [asked.body for asked in service.asked if asked.method == "POST"] == [{"user_id": "ann", "max_budget": 7.25}]
    assert budget == Budget(Decimal("7.25"), Decimal("0.5"), "30d", datetime(2026, 12, 1, tzinfo=UTC))


async def test_an_unchanged_plan_is_not_sent(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/user/info", (200, {"user_info": ROW}))
    assert (await billing.set_plan("ann", FULL)).limit == Decimal("2.5")
    assert [asked.path for asked in service.asked] == ["/user/info"]


async def test_limits_are_removed_by_null_and_models_by_the_name_of_all(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/user/info", (200, {"user_info": ROW}))
    service.says("/user/update", (200, {}))
    await billing.set_plan("ann", Plan())
    assert service.asked[1].body == {
        "user_id": "ann", "max_budget": None, "budget_duration": None, "tpm_limit": None, "rpm_limit": None,
        "models": ["all-proxy-models"],
    }  # fmt: skip


@pytest.mark.parametrize("models", [[], None, ["all-proxy-models"]])
async def test_a_plan_is_read_back_unchanged(
    service: ScriptedLiteLLM, billing: LiteLLMBilling, models: list[str] | None
) -> None:
    service.says("/user/info", (200, {"user_info": ROW}), (200, {"user_info": ROW | {"models": models}}))
    assert await billing.plan("ann") == FULL
    assert await billing.plan("ann") == replace(FULL, models=())


async def test_changing_the_plan_of_an_unknown_customer_creates_none(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/user/info", NO_SUCH_USER)
    for call in (billing.set_plan("ann", FULL), billing.plan("ann")):
        with pytest.raises(PlatformError) as raised:
            await call
        assert raised.value.code is ErrorCode.NOT_FOUND
    assert {asked.path for asked in service.asked} == {"/user/info"}


async def test_a_refused_change_of_plan_is_a_permanent_error(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/user/info", (200, {"user_info": ROW}))
    service.says("/user/update", (400, error("budget_duration is invalid")))
    with pytest.raises(PlatformError) as raised:
        await billing.set_plan("ann", Plan())
    assert (raised.value.code, raised.value.retryable) == (ErrorCode.INTERNAL_ERROR, False)


async def test_the_budget_is_read_as_decimal_text(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    info = (
        '{"user_info": {"max_budget": 5.0, "spend": 0.30000000000000004, "budget_duration": "30d",'
        ' "budget_reset_at": "2026-12-01T00:00:00Z"}}'
    )
    service.says("/user/info", (200, info))
    assert await billing.budget("ann") == Budget(
        Decimal("5.0"), Decimal("0.30000000000000004"), "30d", datetime(2026, 12, 1, tzinfo=UTC)
    )


@pytest.mark.parametrize("answer", [NO_SUCH_USER, (200, {"user_id": "ann", "user_info": None})])
async def test_an_unknown_customer_has_no_budget(
    service: ScriptedLiteLLM, billing: LiteLLMBilling, answer: tuple[int, object]
) -> None:
    service.says("/user/info", answer)
    assert await billing.budget("ann") is None


PRICES = """{"data": [
    {"model_name": "gpt-4", "model_info": {"input_cost_per_token": null, "output_cost_per_token": null}},
    {"model_name": "gpt-4", "model_info": {"input_cost_per_token": 3e-05, "output_cost_per_token": 6e-05,
                                           "cache_read_input_token_cost": null}},
    {"model_name": "mini", "model_info": {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07,
                                          "cache_read_input_token_cost": 7.5e-08}},
    {"model_name": "free", "model_info": {"input_cost_per_token": 0, "output_cost_per_token": 0}},
    {"model_name": "unpriced", "model_info": {}}]}"""


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("gpt-4", ModelPrice(Decimal("0.00003"), Decimal("0.00006"), Decimal("0.00003"))),
        ("mini", ModelPrice(Decimal("0.00000015"), Decimal("0.0000006"), Decimal("0.000000075"))),
        ("free", ModelPrice(Decimal(0), Decimal(0), Decimal(0))),
        ("unpriced", None),
        ("unheard-of", None),
    ],
)
async def test_a_price_is_exactly_what_is_listed(
    service: ScriptedLiteLLM, billing: LiteLLMBilling, model: str, price: ModelPrice | None
) -> None:
    service.says("/model/info", (200, PRICES))
    assert await billing.price(model) == price


async def test_no_key_and_no_address_reaches_a_url_or_the_log(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/user/new", (400, error("User ann@example.com is not allowed")))
    service.says("/key/generate", (400, error(f"bad key {KEY.get_secret_value()}")))
    service.says("/user/info", NO_SUCH_USER)
    events: list[MutableMapping[str, Any]]
    with capture_logs() as events:
        for call in (billing.ensure_customer("ann", "ann@example.com", UNLIMITED), billing.ensure_key("ann", KEY)):
            with pytest.raises(PlatformError):
                await call
    assert len(events) == 2
    shown = str(events) + str([(asked.path, asked.query) for asked in service.asked])
    for secret in (KEY.get_secret_value(), "ann@example.com", MASTER_KEY):
        assert secret not in shown
