"""How every user's agent is made, as data: the configuration of ours that Letta is told, and its hash."""

import hashlib
import re
from typing import Any, Final

import orjson
from letta_client.types import CreateBlockParam, LlmConfigParam

from server.ports import AgentTemplate

AGENT_TYPE: Final = "letta_v1_agent"
"""Plain text of the model is the reply; the older types answer through a tool whose text does not stream."""

TOOLS: Final = (
    "memory_insert",
    "memory_replace",
    "archival_memory_insert",
    "archival_memory_search",
    "conversation_search",
)

EDITING_TOOLS: Final = frozenset({"memory_insert", "memory_replace"})
"""The tools that change memory blocks."""

REMEMBERING_TOOLS: Final = EDITING_TOOLS | {"archival_memory_insert"}
"""The tools that change what the agent remembers, in blocks or in the archive."""

PROVIDER: Final = "litellm"
"""The name of each organization's own model provider. `openai` and the like would make Letta summarise with models
of its own choosing."""

PARALLEL_TOOL_CALLS: Final = True
"""Whether all the tools of one reply of the model are called. Otherwise Letta calls the first and drops the others,
although their calls have been streamed."""

HUMAN: Final = "human"
"""The memory block about the user."""
_NO_NAME: Final = "Friend"
_PERSONA: Final = (
    "You are a helpful, intelligent assistant with perfect memory. "
    "You remember all conversations and can recall any detail from past interactions."
)
_REVISION: Final = 1
"""Raised when existing agents need to be brought up to date for a reason that the other parts do not show."""


def agent_template(model: str, model_url: str, context_window: int) -> AgentTemplate:
    """The template of an agent that talks to `model` at `model_url` (ending in /v1)."""
    parts = [AGENT_TYPE, model, model_url, context_window, PROVIDER, sorted(TOOLS), PARALLEL_TOOL_CALLS, _REVISION]
    digest = hashlib.sha256(orjson.dumps(parts)).hexdigest()[:16]
    return AgentTemplate(model, model_url, digest, context_window)


def model_config(template: AgentTemplate) -> LlmConfigParam:
    """Letta's `llm_config`: the user's own provider by name, and everything Letta would otherwise look up."""
    return {
        "model": template.model,
        "model_endpoint_type": "openai",
        "model_endpoint": template.model_url,
        "provider_name": PROVIDER,
        "provider_category": "byok",
        "handle": f"{PROVIDER}/{template.model}",
        "context_window": template.context_window,
        "parallel_tool_calls": PARALLEL_TOOL_CALLS,
    }


def follows(template: AgentTemplate, agent: Any) -> bool:
    """Whether an agent, as Letta describes it, has the template's model and tools."""
    config = agent.llm_config.model_dump(mode="json")
    same_model = all(config.get(name) == value for name, value in model_config(template).items())
    return same_model and {tool.name for tool in agent.tools} == set(TOOLS)


def memory_blocks(name: str | None) -> list[CreateBlockParam]:
    """What a new agent knows of its user and of itself."""
    return [
        {"label": HUMAN, "value": _name_line(name)},
        {"label": "persona", "value": _PERSONA},
    ]


def with_name(human: str, told: str | None, name: str) -> str:
    """The block about the user with `name` in place of the one that was `told` last (None: none was).

    Only our own words are replaced, so what the agent wrote behind them stays. Where it has rewritten them, the name
    becomes a first line of its own. Repeating it changes nothing."""
    if _place_of(name, human):
        return human
    place = _place_of(told, human)
    if place is None:
        return f"{_name_line(name)}\n{human}"
    return f"{human[: place.start()]}{_name_line(name)}{human[place.end() :]}"


def _place_of(name: str | None, human: str) -> "re.Match[str] | None":
    """Where our words stand at the beginning of a line, with this very name and not a longer one."""
    return re.search(rf"^{re.escape(_name_line(name))}(?![\w'’-])", human, re.MULTILINE)


def _name_line(name: str | None) -> str:
    """On one line, whatever the name: a second one would look like the agent's own knowledge."""
    text = "".join(character if character.isprintable() else " " for character in name or _NO_NAME)
    return f"User's name: {' '.join(text.split())}"
