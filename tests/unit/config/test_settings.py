"""The settings of a deployment, and the errors of invalid ones."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from server.app.clients import default_plan
from server.config.environment import settings_problems
from server.config.settings import Settings, header_in_use, own_url_in_use
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
def test_a_limit_must_be_positive(name: str, value: str) -> None:
    (problem,) = problems(**{name: value})
    assert problem.startswith(name.upper())


@pytest.mark.parametrize("value", ["1y", "0d", "monthly", "2mo"])
def test_a_period_must_be_one_that_litellm_accepts(value: str) -> None:
    (problem,) = problems(budget_period=value)
    assert problem.startswith("BUDGET_PERIOD")


def test_railways_header_is_trusted_only_on_railway_and_can_be_overridden() -> None:
    assert header_in_use(None, {}) is None
    assert header_in_use(None, {"RAILWAY_ENVIRONMENT_ID": "x"}) == "X-Real-IP"
    assert header_in_use("CF-Connecting-IP", {"RAILWAY_PROJECT_ID": "x"}) == "CF-Connecting-IP"
    assert header_in_use(None, {"MY_RAILWAY_TOKEN": "x"}) is None


def test_the_settings_have_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.model_validate(NEEDED).address_header is None
    assert Settings.model_validate(NEEDED | {"client_address_header": "X-Client-IP"}).address_header == "X-Client-IP"
    monkeypatch.setenv("RAILWAY_SERVICE_ID", "x")
    assert Settings.model_validate(NEEDED).address_header == "X-Real-IP"


@pytest.mark.parametrize("name", ["X Real IP", "X-Real-IP:", "Ü", "X-Forwarded-For", "forwarded", "-"])
def test_a_header_with_a_list_of_addresses_is_refused(name: str) -> None:
    (problem,) = problems(client_address_header=name)
    assert problem.startswith("CLIENT_ADDRESS_HEADER")


@pytest.mark.parametrize(
    ("named", "environment", "url"),
    [
        (None, {}, None),
        (None, {"RAILWAY_PUBLIC_DOMAIN": "chat.up.railway.app"}, "https://chat.up.railway.app"),
        ("https://chat.example.com/", {"RAILWAY_PUBLIC_DOMAIN": "chat.up.railway.app"}, "https://chat.example.com"),
    ],
)
def test_the_servers_own_url_is_named_or_railways(named: str | None, environment: dict[str, str], url: str) -> None:
    assert own_url_in_use(named, environment) == url


@pytest.mark.parametrize("url", ["https://chat.example.com/?a=b", "https://a:b@chat.example.com", "chat.example.com"])
def test_a_public_url_that_is_none_is_refused(url: str) -> None:
    (problem,) = problems(public_url=url)
    assert problem.startswith("PUBLIC_URL: ")
