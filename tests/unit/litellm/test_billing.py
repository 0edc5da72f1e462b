"""Customers, keys, budgets and prices, by what LiteLLM 1.106 answers; each answer here is worded as the real one."""

from collections.abc import MutableMapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from server.keyring import fingerprint
from server.litellm_adapter.billing import LiteLLMBilling
from server.ports import Budget, ModelPrice, Plan
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.unit.litellm.scripted import MASTER_KEY, ScriptedLiteLLM, error

KEY = SecretStr("sk-a-value-of-our-own")
UNLIMITED = Plan(None, None)
ID_EXISTS = (409, error("{'error': 'User with id ann already exists'}"))
EMAIL_EXISTS = (409, error("{'error': 'User with email ann@example.com already exists'}"))
NO_SUCH_USER = (404, error("User ann not found"))
ALIAS_EXISTS = (400, error("Key with alias 'user ann' already exists.", "key_alias", "bad_request_error"))
NO_SUCH_KEY = (404, error("Key not found in database", "key", "not_found_error"))
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


async def test_a_customer_who_exists_is_left_as_is(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/user/new", ID_EXISTS)
    service.says("/user/info", (200, ANN))
    await billing.ensure_customer("ann", "ann@example.com", UNLIMITED)
    assert [asked.path for asked in service.asked] == ["/user/new", "/user/info"]


async def test_an_address_held_by_a_former_customer_does_not_keep_the_new_one_out(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/user/new", EMAIL_EXISTS, (200, {"user_id": "ann"}))
    service.says("/user/info", NO_SUCH_USER)
    await billing.ensure_customer("ann", "ann@example.com", UNLIMITED)
    assert service.asked[-1].body == {"user_id": "ann", "auto_create_key": False}


async def test_a_refused_plan_is_an_error_that_does_not_pass(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/user/new", (400, error("budget_duration is invalid")))
    with pytest.raises(PlatformError) as raised:
        await billing.ensure_customer("ann", "ann@example.com", Plan(Decimal(1), "1y"))
    assert not raised.value.retryable
    assert "budget_duration" not in raised.value.message


async def test_the_key_is_ours_named_after_the_user(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/key/generate", (200, {}))
    await billing.ensure_key("ann", KEY)
    assert service.asked[0].body == {"key": KEY.get_secret_value(), "user_id": "ann", "key_alias": "user ann"}


async def test_registering_the_same_key_again_changes_nothing(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/key/generate", ALIAS_EXISTS)
    service.says("/key/info", (200, {"key": fingerprint(KEY), "info": {"user_id": "ann"}}))
    await billing.ensure_key("ann", KEY)
    assert [asked.path for asked in service.asked] == ["/key/generate", "/key/info"]
    assert service.asked[1].query == {"key": fingerprint(KEY)}


async def test_an_older_key_whose_value_was_lost_is_replaced(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/key/generate", ALIAS_EXISTS, (200, {}))
    service.says("/key/info", NO_SUCH_KEY)
    service.says("/key/delete", (200, {"deleted_keys": ["user ann"]}))
    await billing.ensure_key("ann", KEY)
    assert [asked.path for asked in service.asked] == ["/key/generate", "/key/info", "/key/delete", "/key/generate"]
    assert service.asked[2].body == {"key_aliases": ["user ann"]}


async def test_a_refused_key_is_an_error_that_does_not_pass(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/key/generate", (400, error("Invalid key format.")))
    service.says("/key/info", NO_SUCH_KEY)
    with pytest.raises(PlatformError) as raised:
        await billing.ensure_key("ann", KEY)
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
    service.says("/key/info", NO_SUCH_KEY)
    events: list[MutableMapping[str, Any]]
    with capture_logs() as events:
        for call in (billing.ensure_customer("ann", "ann@example.com", UNLIMITED), billing.ensure_key("ann", KEY)):
            with pytest.raises(PlatformError):
                await call
    assert len(events) == 2
    shown = str(events) + str([(asked.path, asked.query) for asked in service.asked])
    for secret in (KEY.get_secret_value(), "ann@example.com", MASTER_KEY):
        assert secret not in shown
