"""Each model call lists an agent's tools in the same order, so that the model's provider can cache the prompt.

The tools are the beginning of a prompt, and providers charge a cached beginning at a fraction. Letta lists them in the
order in which PostgreSQL returns rows that have no order, which differs from call to call.
"""

import functools
from typing import Any, Final

from letta_patches.known import require

_KNOWN: Final = "c5f696673e02dd89"


def apply() -> None:
    """Sort what `_get_valid_tools` returns by name. Raises UnknownCodeError."""
    from letta.agents.letta_agent_v3 import LettaAgentV3

    require({LettaAgentV3._get_valid_tools: _KNOWN})
    LettaAgentV3._get_valid_tools = _sorted(LettaAgentV3._get_valid_tools)


def _sorted(get_valid_tools: Any) -> Any:
    @functools.wraps(get_valid_tools)
    async def in_order(agent: Any) -> list[dict[str, Any]]:
        return sorted(await get_valid_tools(agent), key=lambda tool: str(tool["name"]))

    return in_order
