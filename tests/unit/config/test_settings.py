"""What a deployment may set, and what is said of a mistake in it."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from server.app.clients import default_plan
from server.config.environment import settings_problems
from server.config.settings import Settings
from server.ports import Plan

NEEDED = {
    "supabase_url": "http://127.0.0.1:9",
    "supabase_anon_key": "sb_publishable_x",
    "supabase_service_key": "sb_secret_x",
    "letta_base_url": "http://127.0.0.1:9",
    "litellm_base_url": "http://127.0.0.1:9",
    "litellm_master_key": "sk-x",
    "secret_key": "a secret key",
}


def settings(**more: str) -> Settings:
    return Settings.model_validate(NEEDED | more)


def problems(**more: str) -> list[str]:
    with pytest.raises(ValidationError) as raised:
        settings(**more)
    return settings_problems(raised.value)


def test_without_limits_the_plan_is_unlimited() -> None:
    assert default_plan(settings()) == Plan()


def test_every_default_becomes_part_of_the_plan() -> None:
    plan = default_plan(
        settings(
            default_budget_usd="2.50",
            budget_period="30d",
            default_tokens_per_minute="90000",
            default_requests_per_minute="20",
            default_models="gpt-4, mini,",
        )
    )
    assert plan == Plan(Decimal("2.50"), "30d", 90_000, 20, ("gpt-4", "mini"))


def test_a_plan_without_the_agents_model_is_refused_with_its_name() -> None:
    (problem,) = problems(agent_model="gpt-5", default_models="gpt-4,mini")
    assert problem == "settings: DEFAULT_MODELS must contain AGENT_MODEL (gpt-5), or no agent could answer"


@pytest.mark.parametrize("name", ["default_tokens_per_minute", "default_requests_per_minute", "default_budget_usd"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_limit_is_more_than_nothing(name: str, value: str) -> None:
    (problem,) = problems(**{name: value})
    assert problem.startswith(name.upper())


@pytest.mark.parametrize("value", ["1y", "0d", "monthly", "2mo"])
def test_a_period_is_one_that_litellm_knows(value: str) -> None:
    (problem,) = problems(budget_period=value)
    assert problem.startswith("BUDGET_PERIOD")
