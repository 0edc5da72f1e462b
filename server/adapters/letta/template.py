"""The configuration of every user's agent at Letta, as data, and its hash."""

import hashlib
import re
from typing import Any, Final

import orjson
from letta_client.types import CreateBlockParam, LlmConfigParam

from server.ports import AgentTemplate

AGENT_TYPE: Final = "letta_v1_agent"
"""The model's plain text is the reply; the older types reply with a tool call, whose text is not streamed."""

TOOLS: Final = (
    "memory_insert",
    "memory_replace",
    "archival_memory_insert",
    "archival_memory_search",
    "conversation_search",
)

EDITING_TOOLS: Final = frozenset({"memory_insert", "memory_replace"})
"""The tools that change memory blocks."""

MEMORY_TOOLS: Final = EDITING_TOOLS | {"archival_memory_insert"}
"""The tools that change the agent's memory, in blocks or in the archive."""

PROVIDER: Final = "litellm"
"""The name of each organization's model provider. With a name such as `openai`, Letta would summarise with another
model."""

PARALLEL_TOOL_CALLS: Final = True
"""Whether all tool calls of one model reply are executed. Otherwise Letta executes the first and drops the others,
although they have been streamed."""

HUMAN: Final = "human"
"""The memory block about the user."""
_NO_NAME: Final = "Friend"
_PERSONA: Final = (
    "You are a helpful, intelligent assistant with perfect memory. "
    "You remember all conversations and can recall any detail from past interactions."
)
_REVISION: Final = 1
"""Increased when existing agents need an update for a reason that does not change the other parts."""


def agent_template(model: str, model_url: str, context_window: int) -> AgentTemplate:
    """The template of an agent that uses `model` at `model_url` (ending in /v1)."""
    parts = [AGENT_TYPE, model, model_url, context_window, PROVIDER, sorted(TOOLS), PARALLEL_TOOL_CALLS, _REVISION]
    digest = hashlib.sha256(orjson.dumps(parts)).hexdigest()[:16]
    return AgentTemplate(model, model_url, digest, context_window)


def model_config(template: AgentTemplate) -> LlmConfigParam:
    """Letta's `llm_config`: the user's own provider, and every value that Letta would otherwise look up."""
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


def matches_template(template: AgentTemplate, agent: Any) -> bool:
    """Whether an agent, as Letta describes it, has the template's model and tools."""
    config = agent.llm_config.model_dump(mode="json")
    same_model = all(config.get(name) == value for name, value in model_config(template).items())
    return same_model and {tool.name for tool in agent.tools} == set(TOOLS)


def memory_blocks(name: str | None) -> list[CreateBlockParam]:
    """The memory blocks of a new agent: about its user and about itself."""
    return [
        {"label": HUMAN, "value": _name_line(name)},
        {"label": "persona", "value": _PERSONA},
    ]


def with_name(human: str, previous: str | None, name: str) -> str:
    """The block about the user with `name` in place of the `previous` name (None: there was none).

    Only our own text is replaced, so text that the agent added stays. If the agent has rewritten ours, the name becomes
    the first line. Repeating it changes nothing."""
    if _find_name(name, human):
        return human
    found = _find_name(previous, human)
    if found is None:
        return f"{_name_line(name)}\n{human}"
    return f"{human[: found.start()]}{_name_line(name)}{human[found.end() :]}"


def _find_name(name: str | None, human: str) -> "re.Match[str] | None":
    """Our text with exactly this name, not a longer one, at the beginning of a line."""
    return re.search(rf"^{re.escape(_name_line(name))}(?![\w'’-])", human, re.MULTILINE)


def _name_line(name: str | None) -> str:
    """Our text with the name, always one line: a second line would look like the agent's own text."""
    text = "".join(character if character.isprintable() else " " for character in name or _NO_NAME)
    return f"User's name: {' '.join(text.split())}"
