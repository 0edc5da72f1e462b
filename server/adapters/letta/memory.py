"""An agent's memory: its blocks, its archive, and the use of its context window."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, Final

import httpx

from server.adapters.letta.client import LettaClient, delete_json, post_json, row, rows
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


_EXPORT_SECONDS: Final = 60.0
_NO_PASSAGE: Final = "Your agent's memory has no such passage."


class LettaMemory:
    """Implements `server.ports.AgentMemory`."""

    def __init__(self, client: LettaClient) -> None:
        self._client = client

    async def blocks(self, agent: AgentHandle) -> list[MemoryBlock]:
        """See the port. Sorted by label; Letta does not report when a block was changed."""
        member = self._client.as_member(agent.member_id)
        path = f"/v1/agents/{agent.agent_id}/core-memory/blocks"
        with agent_gone_if_missing():
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

        with agent_gone_if_missing():
            changed = await self._client.repeatable(update)
            await recompile(self._client, agent)
        return changed

    async def passages(self, agent: AgentHandle, query: str | None, limit: int, before: str | None) -> PassagePage:
        """See the port. `query` is searched for literally: the archive has no embeddings."""
        search = {"search": query} if query else {}
        cursor = {"before": before} if before else {}
        found = await self._list(agent, limit=limit + 1, ascending="false", **search, **cursor)
        return PassagePage(tuple(found[:limit]), has_more=len(found) > limit)

    async def add_passage(self, agent: AgentHandle, text: str) -> Passage:
        """See the port. Not repeated: a second call would add a second passage."""
        return await self._add(agent, {"text": text})

    async def replace_passage(self, agent: AgentHandle, passage_id: str, text: str) -> Passage:
        """See the port. Letta cannot change a passage, so the other one is added first: a failure in between leaves
        both."""
        old = await self._passage(agent, passage_id)
        if old is None:
            raise PlatformError(ErrorCode.NOT_FOUND, _NO_PASSAGE)
        created = {} if old.created_at is None else {"created_at": old.created_at.isoformat()}
        new = await self._add(agent, {"text": text, **created})
        await self.delete_passage(agent, passage_id)
        return new

    async def delete_passage(self, agent: AgentHandle, passage_id: str) -> None:
        """See the port."""
        member = self._client.as_member(agent.member_id)
        path = f"{_archive(agent)}/{passage_id}"
        try:
            await self._client.repeatable(lambda: delete_json(member, path))
        except RefusedError as refusal:
            if refusal.status == 404:
                raise PlatformError(ErrorCode.NOT_FOUND, _NO_PASSAGE) from refusal
            raise

    async def _add(self, agent: AgentHandle, passage: dict[str, object]) -> Passage:
        member = self._client.as_member(agent.member_id)

        async def add() -> Passage:
            return _passage((await post_json(member, _archive(agent), passage))[0])

        try:
            with agent_gone_if_missing():
                return await self._client.once(add)
        except RefusedError as refusal:
            if refusal.status == 400:
                raise PlatformError(ErrorCode.TOO_LARGE, "This passage is longer than the memory allows.") from refusal
            raise

    async def _passage(self, agent: AgentHandle, passage_id: str) -> Passage | None:
        """One passage. Letta lists those before or after one of them, but not itself: it is the one before the next."""
        following = await self._list(agent, after=passage_id, ascending="true", limit=1)
        before = {"before": following[0].id} if following else {}
        found = await self._list(agent, ascending="false", limit=1, **before)
        return found[0] if found and found[0].id == passage_id else None

    async def _list(self, agent: AgentHandle, **query: str | int) -> list[Passage]:
        member = self._client.as_member(agent.member_id)
        with agent_gone_if_missing():
            found = await self._client.read(member, _archive(agent), rows("id", "text"), **query)
        return list(map(_passage, found))

    @asynccontextmanager
    async def export(self, agent: AgentHandle) -> AsyncIterator[AsyncIterator[bytes]]:
        """See the port. Letta builds the file in its memory before it answers."""
        agents = self._client.as_member(agent.member_id).agents.with_streaming_response
        async with AsyncExitStack() as response:

            async def ask() -> Any:
                file = agents.export_file(
                    agent.agent_id, conversation_id=agent.conversation_id, timeout=_EXPORT_SECONDS
                )
                return await response.enter_async_context(file)

            with agent_gone_if_missing():
                answer = await self._client.once(ask, deadline=_EXPORT_SECONDS)
            yield _pieces(answer)

    async def context(self, agent: AgentHandle) -> ContextWindow:
        """See the port. The parts add up to `used`: `system` is the rest that is neither block, tool nor message."""
        member = self._client.as_member(agent.member_id)
        path = f"/v1/agents/{agent.agent_id}/context"
        with agent_gone_if_missing():
            seen = await self._client.read(member, path, row(*_COUNTED), conversation_id=agent.conversation_id)
        blocks = seen["num_tokens_core_memory"]
        tools = seen["num_tokens_functions_definitions"] + seen.get("num_tokens_tool_usage_rules", 0)
        messages = seen["num_tokens_messages"] + seen["num_tokens_summary_memory"]
        used = seen["context_window_size_current"]
        system = used - blocks - tools - messages
        return ContextWindow(seen["context_window_size_max"], used, system, blocks, tools, messages)


@contextmanager
def agent_gone_if_missing() -> Iterator[None]:
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


async def _pieces(answer: Any) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.iter_bytes():
            yield piece
    except httpx.HTTPError as error:
        raise PlatformError(ErrorCode.LETTA_UNAVAILABLE) from error


def _archive(agent: AgentHandle) -> str:
    return f"/v1/agents/{agent.agent_id}/archival-memory"


def _block(row: dict[str, Any]) -> MemoryBlock:
    return MemoryBlock(row["label"], row["value"], row["limit"], row.get("description"), updated_at=None)


def _passage(row: dict[str, Any]) -> Passage:
    created = row.get("created_at")
    return Passage(row["id"], row["text"], datetime.fromisoformat(created) if created else None)
