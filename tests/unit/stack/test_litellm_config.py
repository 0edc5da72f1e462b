"""LiteLLM's configuration: the model, its address and its prices, without keys."""

import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.stack.layout import Layout
from server.stack.litellm import upstream
from server.stack.litellm_config import GPT_4_PRICES, Upstream, configuration
from server.stack.litellm_migrations import Migration, read_migrations

COST_MAP = {
    "gpt-4": {"input_cost_per_token": 1.0},
    "gpt-5": {"input_cost_per_token": 2.0},
    "o-image": {"input_cost_per_image": 1.0},
}
DEMO = Upstream("gpt-4", "http://127.0.0.1:1/v1", "demo", demo=True)
REAL = Upstream("gpt-4", "https://example.com/v1", "sk-very-secret")


def model_entry(text: str) -> dict[str, Any]:
    settings = json.loads("\n".join(line for line in text.splitlines() if not line.startswith("#")))
    (entry,) = settings["model_list"]
    return dict(entry)


def test_gpt_4_has_its_price_and_a_lower_one_for_cached_tokens() -> None:
    parameters = model_entry(configuration(DEMO, COST_MAP))["litellm_params"]

    assert {name: parameters[name] for name in GPT_4_PRICES} == GPT_4_PRICES
    assert GPT_4_PRICES["cache_read_input_token_cost"] < GPT_4_PRICES["input_cost_per_token"]


def test_another_model_that_litellm_knows_keeps_litellms_prices() -> None:
    known = Upstream("gpt-5", "https://example.com/v1", "sk-a")

    assert not model_entry(configuration(known, COST_MAP))["litellm_params"].keys() & GPT_4_PRICES.keys()


@pytest.mark.parametrize("model", ["llama3", "o-image"])
def test_a_model_without_a_token_price_is_charged_as_gpt_4_with_a_warning(model: str) -> None:
    with capture_logs() as events:
        entry = model_entry(configuration(Upstream(model, "http://127.0.0.1:11434/v1", "x"), COST_MAP))

    assert entry["model_name"] == model
    assert entry["litellm_params"]["model"] == f"openai/{model}"
    assert entry["litellm_params"]["input_cost_per_token"] == GPT_4_PRICES["input_cost_per_token"]
    assert [event["event"] for event in events] == ["litellm.price_unknown"]


@pytest.mark.parametrize(("model", "demo"), [(DEMO, True), (REAL, False)])
def test_the_demo_model_is_marked_as_demo(model: Upstream, demo: bool) -> None:
    assert model_entry(configuration(model, COST_MAP))["model_info"]["demo"] is demo


def test_the_file_contains_no_key() -> None:
    text = configuration(REAL, COST_MAP)

    assert "sk-" not in text
    assert model_entry(text)["litellm_params"]["api_key"].startswith("os.environ/")


def test_the_deployment_id_is_not_a_public_model_name() -> None:
    assert model_entry(configuration(DEMO, COST_MAP))["model_info"]["id"] not in COST_MAP


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"OPENAI_API_KEY": "sk-a"},
            Upstream("gpt-4", "https://api.openai.com/v1", "sk-a"),
        ),
        (
            {"OPENAI_API_KEY": "x", "OPENAI_BASE_URL": "http://127.0.0.1:11434/v1", "AGENT_MODEL": "llama3"},
            Upstream("llama3", "http://127.0.0.1:11434/v1", "x"),
        ),
    ],
)
def test_the_environment_names_the_model(tmp_path: Path, environ: dict[str, str], expected: Upstream) -> None:
    assert upstream(Layout(tmp_path, 8080, environ)) == expected


def test_without_a_key_the_demo_model_has_the_models_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path, 8080, {"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"})

    found = upstream(layout)

    assert found == Upstream("gpt-4", f"http://127.0.0.1:{layout.port('model')}/v1", "demo", demo=True)


@pytest.mark.parametrize(
    ("sql", "outside"),
    [
        ("-- note\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t(a);", True),
        ("-- no CREATE INDEX CONCURRENTLY here\nALTER TABLE t ADD COLUMN b int;", False),
    ],
)
def test_only_concurrent_index_builds_run_outside_a_transaction(sql: str, outside: bool) -> None:
    assert Migration("m", sql.encode()).outside_transaction is outside


def test_migrations_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("2_b", "1_a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "migration.sql").write_text(f"select '{name}'")
    (tmp_path / "migration_lock.toml").write_text("")

    assert [migration.name for migration in read_migrations(tmp_path)] == ["1_a", "2_b"]
