"""The settings of a deployment, and the errors of invalid ones."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from server.app.clients import plans_of
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
    assert plans_of(settings()).named["default"] == Plan()


def test_every_default_becomes_part_of_the_plan() -> None:
    plans = plans_of(
        settings(
            default_budget_usd="2.50",
            budget_period="30d",
            default_tokens_per_minute="90000",
            default_requests_per_minute="20",
            default_models="gpt-4, mini,",
        )
    )
    assert plans.of_new(None) == ("default", Plan(Decimal("2.50"), "30d", 90_000, 20, ("gpt-4", "mini")))


PRESETS = '{"free": {"budget": "0.50", "period": "1d"}, "pro": {"budget": 20.1, "requests_per_minute": 60}}'


def test_named_plans_are_read_from_json_and_one_of_them_is_the_default() -> None:
    plans = plans_of(settings(plans=PRESETS, default_plan="free", default_budget_usd="3"))
    assert plans.named == {
        "default": Plan(Decimal(3)),
        "free": Plan(Decimal("0.50"), "1d"),
        "pro": Plan(Decimal("20.1"), requests_per_minute=60),
    }
    assert plans.of_new(None)[0] == plans.of_new("of yesterday")[0] == "free"
    assert plans.of_new("pro")[0] == "pro"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("pro", "must be JSON"),
        ('["pro"]', "PLANS"),
        ('{"Pro plan": {}}', "PLANS"),
        ('{"pro": {"budget": "-1"}}', "PLANS"),
        ('{"pro": {"period": "1y"}}', "PLANS"),
        ('{"pro": {"budgets": "1"}}', "PLANS"),
        ('{"pro": {"tokens_per_minute": 0}}', "PLANS"),
        ('{"default": {}}', "must not name a plan `default`"),
        ('{"pro": {"models": ["mini"]}}', "the models of pro must contain AGENT_MODEL (gpt-4)"),
    ],
)
def test_a_plan_that_could_not_be_used_is_refused(value: str, complaint: str) -> None:
    assert any(complaint in problem for problem in problems(plans=value))


def test_the_default_plan_must_exist() -> None:
    assert problems(plans=PRESETS, default_plan="gold") == ["settings: DEFAULT_PLAN (gold) must be one of PLANS"]


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


def test_the_demo_user_is_an_address_and_a_password() -> None:
    found = settings(demo_user="demo@example.com:pass:word-1").demo_user
    assert found is not None
    assert (found.email, found.password) == ("demo@example.com", "pass:word-1")
    assert settings(demo_user="").demo_user is None


@pytest.mark.parametrize("value", ["demo@example.com", "demo@example.com:", "demo:password-1", ":", "@"])
def test_a_demo_user_that_is_none_is_refused(value: str) -> None:
    (problem,) = problems(demo_user=value)
    assert problem == "DEMO_USER: must be an address and a password, as demo@example.com:Demo-user-1"


@pytest.mark.parametrize("given", [{"demo_model": "true"}, {"demo_user": "demo@example.com:Demo-user-1"}], ids=str)
def test_nothing_of_the_demo_is_accepted_in_production(given: dict[str, str]) -> None:
    (problem,) = problems(environment="production", secret_key="0123456789abcdef" * 2, **given)
    assert problem == "settings: DEMO_MODEL and DEMO_USER are for development: empty both in production"


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


def test_links_in_mails_lead_to_the_apps_page_else_to_ours_else_to_the_projects_site() -> None:
    assert settings(public_url="https://chat.example.com/").mail_link_url == "https://chat.example.com/auth/callback"
    both = settings(public_url="https://chat.example.com", auth_redirect_url="https://app.example.com/welcome")
    assert both.mail_link_url == "https://app.example.com/welcome"
    assert settings().mail_link_url is None


@pytest.mark.parametrize("url", ["https://chat.example.com/?a=b", "https://a:b@chat.example.com", "chat.example.com"])
def test_a_public_url_that_is_none_is_refused(url: str) -> None:
    (problem,) = problems(public_url=url)
    assert problem.startswith("PUBLIC_URL: ")
