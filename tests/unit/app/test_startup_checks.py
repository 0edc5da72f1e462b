"""Checks before the server starts: the demo model is refused in production, and probable mistakes are logged."""

from collections.abc import AsyncIterator
from decimal import Decimal

import click
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import HttpUrl, SecretStr
from structlog.testing import capture_logs

from server.adapters.litellm.billing import is_listed
from server.app.startup_checks import check_at_start
from server.config.settings import Settings
from tests.unit.adapters.litellm.scripted import ScriptedLiteLLM

NOWHERE = HttpUrl("http://127.0.0.1:9")


@pytest.fixture
def litellm() -> ScriptedLiteLLM:
    service = ScriptedLiteLLM()
    service.says("/model/info", (200, {"data": [deployment("gpt-4", demo=True), deployment("gpt-5", demo=False)]}))
    return service


@pytest.fixture
async def settings(litellm: ScriptedLiteLLM) -> AsyncIterator[Settings]:
    """Settings of production with the test's LiteLLM."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", litellm.handle)
    async with TestServer(app) as server:
        yield Settings(
            environment="production",
            supabase_url=NOWHERE,
            supabase_anon_key=SecretStr("sb_publishable_x"),
            supabase_service_key=SecretStr("sb_secret_x"),
            letta_base_url=NOWHERE,
            litellm_base_url=HttpUrl(str(server.make_url("/"))),
            litellm_master_key=SecretStr("sk-x"),
            default_budget_usd=Decimal(5),
            trusted_proxies=1,
            secret_key=SecretStr("Jq3xV9tLw2ZkB7mNcR5yHdGf8-Jq3xV9tLw2ZkB7mNc"),
        )


def deployment(model: str, *, demo: bool) -> dict[str, object]:
    return {"model_name": model, "model_info": {"id": f"stack-{model}", "demo": demo}}


async def test_the_demo_model_is_refused(settings: Settings) -> None:
    with pytest.raises(click.ClickException, match="gpt-4 by the demo model, which ENVIRONMENT=production refuses"):
        await check_at_start(settings)


async def test_a_real_model_is_accepted_beside_the_demo_model(settings: Settings) -> None:
    with capture_logs() as events:
        await check_at_start(settings.model_copy(update={"agent_model": "gpt-5"}))
    assert events == []


@pytest.mark.parametrize("data", [[], [{"model_name": "gpt-4"}], [{"model_name": "gpt-4", "model_info": None}]])
async def test_a_model_without_a_demo_mark_is_accepted(
    settings: Settings, litellm: ScriptedLiteLLM, data: list[object]
) -> None:
    litellm.says("/model/info", (200, {"data": data}))
    await check_at_start(settings)


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_an_unavailable_litellm_is_a_warning(settings: Settings, litellm: ScriptedLiteLLM, status: int) -> None:
    litellm.says("/model/info", (status, {}))
    with capture_logs() as events:
        await check_at_start(settings)
    assert events[-1]["event"] == "model.unknown"


@pytest.mark.parametrize(
    ("changed", "logged"),
    [
        ({"default_budget_usd": None}, ["production.no_default_budget"]),
        ({"trusted_proxies": 0}, ["client_address.from_connections"]),
        ({"trusted_proxies": 0, "client_address_header": "X-Real-IP"}, []),
        ({"environment": "development", "public_url": HttpUrl("http://127.0.0.1:8080")}, []),
        (
            {"environment": "development", "public_url": HttpUrl("https://chat.example.com")},
            ["settings.development_in_public"],
        ),
    ],
)
async def test_probable_mistakes_are_logged(settings: Settings, changed: dict[str, object], logged: list[str]) -> None:
    with capture_logs() as events:
        await check_at_start(settings.model_copy(update={"agent_model": "gpt-5"} | changed))
    assert [event["event"] for event in events] == logged


async def test_the_demo_model_is_accepted_outside_production(settings: Settings) -> None:
    with capture_logs() as events:
        await check_at_start(settings.model_copy(update={"environment": "development"}))
    assert events == []


@pytest.mark.parametrize("environment", ["development", "production"])
async def test_a_model_that_litellm_does_not_list_is_logged(settings: Settings, environment: str) -> None:
    changed = {"environment": environment, "agent_model": "gpt-6"}
    with capture_logs() as events:
        await check_at_start(settings.model_copy(update=changed))
    (event,) = events
    assert (event["event"], event["model"]) == ("model.not_listed", "gpt-6")


@pytest.mark.parametrize(
    ("model", "name", "listed"),
    [
        ("gpt-5", "gpt-5", True),
        ("openai/gpt-5", "openai/*", True),
        ("openai/gpt-5", "*", True),
        ("gpt-5", "openai/*", False),
        ("gpt-5", "gpt-[5]", False),
        ("gpt-[5]", "gpt-[5]", True),
        ("gpt-5", "gpt-?", False),
        ("gpt-5", "GPT-5", False),
    ],
)
def test_a_model_is_listed_by_its_name_or_a_pattern(model: str, name: str, listed: bool) -> None:
    assert is_listed(model, ["other", name]) is listed


async def test_a_misspelt_variable_is_logged(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_BASE_ULR", "http://secret.internal")
    with capture_logs() as events:
        await check_at_start(settings.model_copy(update={"agent_model": "gpt-5"}))
    (event,) = events
    assert (event["given"], event["meant"]) == ("LETTA_BASE_ULR", "LETTA_BASE_URL")
    assert "secret" not in str(event)
