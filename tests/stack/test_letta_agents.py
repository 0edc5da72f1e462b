"""Agents of a real Letta: made by the template, and updated without losing their memory."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from server.adapters.letta.template import agent_template, matches_template
from server.ports import AgentGoneError, AgentHandle
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.letta_world import LettaWorld, letta_world, prompt_of, text_of


@pytest.fixture(scope="module")
async def world(stack_env: dict[str, str]) -> AsyncIterator[LettaWorld]:
    async with letta_world(stack_env) as opened:
        yield opened


@pytest.fixture
async def agent(world: LettaWorld) -> AgentHandle:
    """An agent that no other test changes."""
    return await world.stranger()


async def user_of(world: LettaWorld, agent: AgentHandle) -> str:
    made = await world.client.as_member(agent.member_id).agents.retrieve(agent.agent_id, include=["agent.tags"])
    (tag,) = made.tags
    return tag.removeprefix("user:")


async def test_a_new_agent_knows_its_user_and_itself(world: LettaWorld, agent: AgentHandle) -> None:
    blocks = {block.label: block.value for block in await world.memory.blocks(agent)}
    assert blocks["human"] == "User's name: Ada"
    assert blocks["persona"].startswith("You are a helpful, intelligent assistant with perfect memory.")
    await world.say(agent, "ECHO who am I?")
    assert "User's name: Ada" in prompt_of(world.asked("who am I?"))


async def test_an_agent_with_another_configuration_is_brought_up_to_date(world: LettaWorld, agent: AgentHandle) -> None:
    await world.memory.update_block(agent, "human", "Her name is Ada.")
    agents = world.client.as_member(agent.member_id).agents
    tool = next(iter((await agents.tools.list(agent.agent_id)).items))
    await agents.tools.detach(tool.id, agent_id=agent.agent_id)
    template = agent_template("gpt-4o", world.template.model_url, 16_000)

    same = await world.directory.ensure_agent(agent.member_id, await user_of(world, agent), "Eve", template)

    assert same == agent.agent_id
    assert matches_template(template, await agents.retrieve(agent.agent_id, include=["agent.tools"]))
    assert text_of(await world.say(agent, "ECHO still here")) == "still here"
    assert world.asked("still here").model == "gpt-4o"
    assert "Her name is Ada." in prompt_of(world.asked("still here"))


async def test_a_block_can_be_read_and_changed_but_not_beyond_its_limit(world: LettaWorld, agent: AgentHandle) -> None:
    changed = await world.memory.update_block(agent, "human", "Likes tea.")
    assert changed.value == "Likes tea."
    assert changed in await world.memory.blocks(agent)
    with pytest.raises(PlatformError) as refused:
        await world.memory.update_block(agent, "human", "x" * (changed.limit + 1))
    assert refused.value.code is ErrorCode.TOO_LARGE
    assert changed in await world.memory.blocks(agent)


async def test_a_block_that_does_not_exist_is_not_found(world: LettaWorld, agent: AgentHandle) -> None:
    for label in ("nothing", "../../tools", ""):
        with pytest.raises(PlatformError) as refused:
            await world.memory.update_block(agent, label, "x")
        assert refused.value.code is ErrorCode.NOT_FOUND


async def test_the_archive_is_paged_newest_first(world: LettaWorld, agent: AgentHandle) -> None:
    passages = world.client.as_member(agent.member_id).agents.passages
    for number in range(5):
        await passages.create(agent.agent_id, text=f"fact {number}")
    pages, before, more = [], None, True
    while more:
        page = await world.memory.passages(agent, None, 2, before)
        pages.append([passage.text for passage in page.data])
        before, more = page.data[-1].id, page.has_more
    assert pages == [["fact 4", "fact 3"], ["fact 2", "fact 1"], ["fact 0"]]


async def test_the_parts_of_the_context_window_add_up(world: LettaWorld, agent: AgentHandle) -> None:
    before = await world.memory.context(agent)
    await world.say(agent, "ECHO one more message")
    after = await world.memory.context(agent)
    assert after.window == world.template.context_window
    assert after.used == after.system + after.blocks + after.tools + after.messages
    assert after.messages > before.messages
    assert min(after.system, after.blocks, after.tools) > 0


async def test_a_user_cannot_read_or_change_another_users_memory(world: LettaWorld, agent: AgentHandle) -> None:
    passages = world.client.as_member(agent.member_id).agents.passages
    await passages.create(agent.agent_id, text="a private fact")
    thief = replace(agent, member_id=world.agent.member_id)
    assert (await world.memory.passages(thief, None, 10, None)).data == ()
    for attempt in (
        lambda: world.memory.blocks(thief),
        lambda: world.memory.update_block(thief, "human", "mine"),
        lambda: world.memory.context(thief),
    ):
        with pytest.raises(AgentGoneError):
            await attempt()
