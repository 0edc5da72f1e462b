"""The hash of an agent's configuration: stable, and different if existing agents need an update."""

import pytest

from server.adapters.letta import template
from server.adapters.letta.template import agent_template, memory_blocks, model_config

URL = "http://litellm:4000/v1"


def test_the_same_configuration_has_the_same_hash() -> None:
    assert agent_template("gpt-4", URL, 32_000) == agent_template("gpt-4", URL, 32_000)


def test_every_part_of_the_configuration_changes_the_hash() -> None:
    hashes = {
        agent_template(model, url, window).hash
        for model in ("gpt-4", "gpt-4o")
        for url in (URL, "http://elsewhere/v1")
        for window in (16_000, 32_000)
    }
    assert len(hashes) == 8


def test_the_model_is_called_through_the_users_own_provider() -> None:
    config = model_config(agent_template("gpt-4", URL, 16_000))
    assert config["provider_name"] == "litellm"
    assert config["provider_category"] == "byok"
    assert (config["model_endpoint"], config["context_window"]) == (URL, 16_000)


def test_parallel_tool_calls_are_on_and_part_of_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before = agent_template("gpt-4", URL, 32_000)
    assert model_config(before)["parallel_tool_calls"] is True
    monkeypatch.setattr(template, "PARALLEL_TOOL_CALLS", False)
    assert agent_template("gpt-4", URL, 32_000).hash != before.hash


def test_a_new_agent_has_its_users_name_or_friend() -> None:
    assert memory_blocks("Анна")[0] == {"label": "human", "value": "User's name: Анна"}
    assert memory_blocks(None)[0] == {"label": "human", "value": "User's name: Friend"}
