"""The contract of AgentMemory's passages and file, on the fake and on a real Letta."""

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from server.ports import AgentGoneError, AgentHandle, AgentMemory
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.memory import FakeMemory
from tests.letta_world import letta_world


@dataclass(frozen=True, slots=True)
class MemoryWorld:
    """An agent of its own, and another user's."""

    memory: AgentMemory
    agent: AgentHandle
    other: AgentHandle


@pytest.fixture(params=["fake", "letta"], scope="module")
async def worlds(request: pytest.FixtureRequest) -> AsyncIterator[MemoryWorld]:
    if request.param == "fake":
        handles = [AgentHandle(f"member-{n}", f"agent-{n}", f"conv-{n}") for n in range(2)]
        yield MemoryWorld(FakeMemory(), *handles)
    else:
        async with letta_world(request.getfixturevalue("stack_env")) as letta:
            yield MemoryWorld(letta.memory, await letta.stranger(), await letta.stranger())


@pytest.fixture
async def world(worlds: MemoryWorld) -> MemoryWorld:
    """The world, in which the agent has no passages."""
    for passage in (await worlds.memory.passages(worlds.agent, None, 100, None)).data:
        await worlds.memory.delete_passage(worlds.agent, passage.id)
    return worlds


async def texts(world: MemoryWorld, query: str | None = None) -> list[str]:
    return [one.text for one in (await world.memory.passages(world.agent, query, 100, None)).data]


async def test_passages_are_added_and_found(world: MemoryWorld) -> None:
    for text in ("likes tea", "has a cat", "likes rain"):
        added = await world.memory.add_passage(world.agent, text)
        assert added.text == text
    assert await texts(world) == ["likes rain", "has a cat", "likes tea"]
    assert await texts(world, "likes") == ["likes rain", "likes tea"]


async def test_a_replaced_passage_keeps_its_time_and_its_place(world: MemoryWorld) -> None:
    made = [await world.memory.add_passage(world.agent, text) for text in ("one", "two", "three")]
    for old, text in zip(made, ("eins", "zwei", "drei"), strict=True):
        new = await world.memory.replace_passage(world.agent, old.id, text)
        assert (new.text, new.created_at) == (text, old.created_at)
        assert new.id != old.id
    assert await texts(world) == ["drei", "zwei", "eins"]


async def test_a_deleted_passage_is_gone(world: MemoryWorld) -> None:
    made = [await world.memory.add_passage(world.agent, text) for text in ("one", "two")]
    await world.memory.delete_passage(world.agent, made[0].id)
    assert await texts(world) == ["two"]


async def test_a_passage_that_does_not_exist_is_not_found(world: MemoryWorld) -> None:
    kept = await world.memory.add_passage(world.agent, "kept")
    others = await world.memory.add_passage(world.other, "another user's")
    for passage_id in (f"passage-{uuid.uuid4()}", others.id):
        for attempt in (
            world.memory.replace_passage(world.agent, passage_id, "x"),
            world.memory.delete_passage(world.agent, passage_id),
        ):
            with pytest.raises(PlatformError) as refusal:
                await attempt
            assert refusal.value.code is ErrorCode.NOT_FOUND
    assert await texts(world) == ["kept"]
    await world.memory.delete_passage(world.agent, kept.id)
    await world.memory.delete_passage(world.other, others.id)


async def test_a_passage_has_a_limit(world: MemoryWorld) -> None:
    with pytest.raises(PlatformError) as refusal:
        await world.memory.add_passage(world.agent, "word " * 40_000)
    assert refusal.value.code is ErrorCode.TOO_LARGE
    assert await texts(world) == []


async def test_the_agents_file_is_one_json_document(world: MemoryWorld) -> None:
    async with world.memory.export(world.agent) as pieces:
        file = json.loads(b"".join([piece async for piece in pieces]))
    assert len(file["agents"]) == 1


async def test_an_agent_that_is_gone_has_no_memory(world: MemoryWorld) -> None:
    if isinstance(world.memory, FakeMemory):
        return  # it has every agent
    gone = AgentHandle(world.agent.member_id, f"agent-{uuid.uuid4()}", world.agent.conversation_id)
    with pytest.raises(AgentGoneError):
        await world.memory.add_passage(gone, "x")
