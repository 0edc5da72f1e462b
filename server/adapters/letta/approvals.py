"""Denies tool calls that require an approval: an operator has set this at Letta, and the platform cannot give one.

Until the call is denied, Letta refuses every message to the conversation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from server.adapters.letta.client import LettaClient, rows
from server.adapters.letta.stream import Chunk
from server.ports import AgentHandle, ToolReturned

log = structlog.get_logger(__name__)

_REQUEST: Final = "approval_request_message"
_RESPONSE: Final = "approval_response_message"
_REASON: Final = "This tool needs an approval, and there is nobody who could give it."


@dataclass(frozen=True, slots=True)
class Denial:
    """`message` is sent before any other; `returns` are the results of the denied calls."""

    message: dict[str, Any]
    returns: tuple[ToolReturned, ...]


async def denial(client: LettaClient, agent: AgentHandle) -> Denial | None:
    """The denial of the calls that await an approval; None if there are none. Raises PlatformError."""
    member, path = client.as_member(agent.member_id), f"/v1/conversations/{agent.conversation_id}/messages"
    newest = await client.read(member, path, rows("message_type"), order="desc", limit=1)
    if not newest or newest[0]["message_type"] != _REQUEST:
        return None
    calls = newest[0].get("tool_calls") or [newest[0]["tool_call"]]
    log.warning("tool.denied", conversation_id=agent.conversation_id, tools=[call["name"] for call in calls])
    denied = [
        {"type": "approval", "tool_call_id": call["tool_call_id"], "approve": False, "reason": _REASON}
        for call in calls
    ]
    return Denial(
        {"type": "approval", "approvals": denied},
        tuple(ToolReturned(call["tool_call_id"], call["name"], "denied") for call in calls),
    )


def is_denial(messages: Sequence[Chunk]) -> bool:
    """Whether these are the messages of a run that a denial began."""
    return bool(messages) and messages[0]["message_type"] == _RESPONSE
