"""An agent's memory, in memory: blocks, archival passages and a context window, one set per agent."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from server.ports import AgentHandle, ContextWindow, MemoryBlock, Passage, PassagePage
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

BLOCK_CHARACTERS = 100
PASSAGE_CHARACTERS = 10_000


@dataclass(slots=True)
class FakeMemory:
    """Implements `server.ports.AgentMemory`. `down`: the service does not answer."""

    down: bool = False
    broken_file: bool = False
    """The agent's file breaks off."""
    blocks_of: dict[str, dict[str, MemoryBlock]] = field(default_factory=dict)
    """Blocks by label, by agent id."""
    passages_of: dict[str, list[Passage]] = field(default_factory=dict)
    """Oldest first, by agent id."""

    async def blocks(self, agent: AgentHandle) -> list[MemoryBlock]:
        return list(self._blocks(agent).values())

    async def update_block(self, agent: AgentHandle, label: str, value: str) -> MemoryBlock:
        blocks = self._blocks(agent)
        if label not in blocks:
            raise PlatformError(ErrorCode.NOT_FOUND)
        if len(value) > blocks[label].limit:
            raise PlatformError(ErrorCode.TOO_LARGE)
        blocks[label] = replace(blocks[label], value=value, updated_at=datetime.now(UTC))
        return blocks[label]

    async def passages(self, agent: AgentHandle, query: str | None, limit: int, before: str | None) -> PassagePage:
        self._must_answer()
        newest_first = list(reversed(self.passages_of.get(agent.agent_id, [])))
        if before is not None:
            ids = [passage.id for passage in newest_first]
            newest_first = newest_first[ids.index(before) + 1 :] if before in ids else []
        found = [passage for passage in newest_first if query is None or query.lower() in passage.text.lower()]
        return PassagePage(tuple(found[:limit]), len(found) > limit)

    async def add_passage(self, agent: AgentHandle, text: str) -> Passage:
        self._must_answer()
        return self._add(agent, Passage(f"passage-{uuid.uuid4()}", text, datetime.now(UTC)))

    async def replace_passage(self, agent: AgentHandle, passage_id: str, text: str) -> Passage:
        passages = self._with(agent, passage_id)
        at = next(index for index, one in enumerate(passages) if one.id == passage_id)
        passages[at] = replace(passages[at], id=f"passage-{uuid.uuid4()}", text=self._fitting(text))
        return passages[at]

    async def delete_passage(self, agent: AgentHandle, passage_id: str) -> None:
        passages = self._with(agent, passage_id)
        passages[:] = [one for one in passages if one.id != passage_id]

    @asynccontextmanager
    async def export(self, agent: AgentHandle) -> AsyncIterator[AsyncIterator[bytes]]:
        self._must_answer()
        yield self._pieces(agent)

    async def _pieces(self, agent: AgentHandle) -> AsyncIterator[bytes]:
        for piece in (b'{"agents": ["', agent.agent_id.encode(), b'"]}'):
            if self.broken_file:
                raise PlatformError(ErrorCode.LETTA_UNAVAILABLE)
            yield piece

    def _with(self, agent: AgentHandle, passage_id: str) -> list[Passage]:
        self._must_answer()
        passages = self.passages_of.setdefault(agent.agent_id, [])
        if all(one.id != passage_id for one in passages):
            raise PlatformError(ErrorCode.NOT_FOUND)
        return passages

    def _add(self, agent: AgentHandle, passage: Passage) -> Passage:
        self._fitting(passage.text)
        self.passages_of.setdefault(agent.agent_id, []).append(passage)
        return passage

    def _fitting(self, text: str) -> str:
        if len(text) > PASSAGE_CHARACTERS:
            raise PlatformError(ErrorCode.TOO_LARGE)
        return text

    async def context(self, agent: AgentHandle) -> ContextWindow:
        self._must_answer()
        return ContextWindow(32_000, 1_200, 800, 100, 200, 100)

    def remember(self, agent: AgentHandle, *texts: str) -> None:
        """Add passages to the agent's archival memory."""
        passages = self.passages_of.setdefault(agent.agent_id, [])
        for text in texts:
            passages.append(Passage(f"passage-{uuid.uuid4()}", text, datetime.now(UTC)))

    def _blocks(self, agent: AgentHandle) -> dict[str, MemoryBlock]:
        self._must_answer()
        fresh = {
            label: MemoryBlock(label, f"about the {label}", BLOCK_CHARACTERS, None, None)
            for label in ("human", "persona")
        }
        return self.blocks_of.setdefault(agent.agent_id, fresh)

    def _must_answer(self) -> None:
        if self.down:
            raise PlatformError(ErrorCode.LETTA_UNAVAILABLE, retry_after=5.0)
