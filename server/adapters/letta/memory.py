"""An agent's memory: its blocks, its archive, and the use of its context window."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from server.adapters.letta.client import LettaClient, row, rows
from server.adapters.letta.errors import RefusedError
from server.ports import AgentGoneError, AgentHandle, ContextWindow, MemoryBlock, Passage, PassagePage
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

_COUNTED: Final = (
    "num_tokens_core_memory",
    "num_tokens_functions_definitions",
    "num_tokens_messages",
    "num_tokens_summary_memory",
    "context_window_size_current",
    "context_window_size_max",
)


class LettaMemory:
    """Implements `server.ports.AgentMemory`."""

    def __init__(self, client: LettaClient) -> None:
        self._client = client

    async def blocks(self, agent: AgentHandle) -> list[MemoryBlock]:
        """See the port. Sorted by label; Letta does not report when a block was changed."""
        member = self._client.as_member(agent.member_id)
        path = f"/v1/agents/{agent.agent_id}/core-memory/blocks"
        with _agent_gone_if_missing():
            found = await self._client.read(member, path, rows("label", "value", "limit"), limit=100)
        return sorted(map(_block, found), key=lambda block: block.label)

    async def update_block(self, agent: AgentHandle, label: str, value: str) -> MemoryBlock:
        """See the port. Checks the block's limit, which Letta does not enforce."""
        block = next((one for one in await self.blocks(agent) if one.label == label), None)
        if block is None:
            raise PlatformError(ErrorCode.NOT_FOUND, "Your agent has no such memory block.")
        if len(value) > block.limit:
            raise PlatformError(ErrorCode.TOO_LARGE, f"This memory block holds at most {block.limit:,} characters.")
        blocks = self._client.as_member(agent.member_id).agents.blocks

        async def update() -> MemoryBlock:
            return _block((await blocks.update(label, agent_id=agent.agent_id, value=value)).model_dump())

        with _agent_gone_if_missing():
            changed = await self._client.repeatable(update)
            await recompile(self._client, agent)
        return changed

    async def passages(self, agent: AgentHandle, query: str | None, limit: int, before: str | None) -> PassagePage:
        """See the port. `query` is searched for literally: the archive has no embeddings."""
        search = {"search": query} if query else {}
        cursor = {"before": before} if before else {}
        member = self._client.as_member(agent.member_id)
        path = f"/v1/agents/{agent.agent_id}/archival-memory"
        page = rows("id", "text")
        with _agent_gone_if_missing():
            found = await self._client.read(member, path, page, limit=limit + 1, ascending="false", **search, **cursor)
        return PassagePage(tuple(map(_passage, found[:limit])), has_more=len(found) > limit)

    async def context(self, agent: AgentHandle) -> ContextWindow:
        """See the port. The parts add up to `used`: `system` is the rest that is neither block, tool nor message."""
        member = self._client.as_member(agent.member_id)
        path = f"/v1/agents/{agent.agent_id}/context"
        with _agent_gone_if_missing():
            seen = await self._client.read(member, path, row(*_COUNTED), conversation_id=agent.conversation_id)
        blocks = seen["num_tokens_core_memory"]
        tools = seen["num_tokens_functions_definitions"] + seen.get("num_tokens_tool_usage_rules", 0)
        messages = seen["num_tokens_messages"] + seen["num_tokens_summary_memory"]
        used = seen["context_window_size_current"]
        system = used - blocks - tools - messages
        return ContextWindow(seen["context_window_size_max"], used, system, blocks, tools, messages)


@contextmanager
def _agent_gone_if_missing() -> Iterator[None]:
    """Raise AgentGoneError for a 404: it means that Letta does not have the agent."""
    try:
        yield
    except RefusedError as refusal:
        if refusal.status == 404:
            raise AgentGoneError from refusal
        raise


async def recompile(client: LettaClient, agent: AgentHandle) -> None:
    """Write the agent's current memory blocks into the conversation's system prompt (50 ms).

    Letta does so only when the conversation is created or summarised: without this call the model would not see
    changes that users or tools have made since.
    """
    conversations = client.as_member(agent.member_id).conversations
    await client.repeatable(lambda: conversations.recompile(agent.conversation_id))


def _block(row: dict[str, Any]) -> MemoryBlock:
    return MemoryBlock(row["label"], row["value"], row["limit"], row.get("description"), updated_at=None)


def _passage(row: dict[str, Any]) -> Passage:
    created = row.get("created_at")
    return Passage(row["id"], row["text"], datetime.fromisoformat(created) if created else None)
