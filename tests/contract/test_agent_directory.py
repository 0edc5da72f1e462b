"""The contract of AgentDirectory: each step of creating an agent may be repeated without creating anything twice."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Protocol

import pytest
from pydantic import SecretStr

from server.adapters.letta.client import LettaClient
from server.adapters.letta.memory import LettaMemory
from server.adapters.letta.template import agent_template
from server.ports import AgentDirectory, AgentGoneError, AgentHandle, AgentTemplate, MemoryBlock
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.directory import HUMAN_CHARACTERS, FakeDirectory
from tests.letta_world import letta_world

KEY = SecretStr("sk-first")


class DirectoryWorld(Protocol):
    """`delete_…` deletes as an operator of the agent service does by hand."""

    @property
    def directory(self) -> AgentDirectory: ...

    @property
    def template(self) -> AgentTemplate: ...

    async def delete_agent(self, member_id: str, agent_id: str) -> None: ...

    async def delete_organization(self, organization_id: str) -> None: ...

    async def human(self, agent: AgentHandle) -> str:
        """The agent's memory block about its user."""
        ...

    async def write(self, agent: AgentHandle, text: str) -> None:
        """Write to the block, as the agent does."""
        ...

    async def room(self, agent: AgentHandle) -> int:
        """The block's limit in characters."""
        ...


@dataclass(frozen=True, slots=True)
class FakeDirectoryWorld:
    directory: FakeDirectory
    template: AgentTemplate

    async def delete_agent(self, member_id: str, agent_id: str) -> None:
        member = self.directory.members[member_id]
        member.agents[:] = [agent for agent in member.agents if agent.id != agent_id]
        member.conversations.pop(agent_id, None)

    async def delete_organization(self, organization_id: str) -> None:
        del self.directory.organizations[organization_id]

    async def human(self, agent: AgentHandle) -> str:
        return self.directory.agent(agent).human

    async def write(self, agent: AgentHandle, text: str) -> None:
        self.directory.agent(agent).human = text

    async def room(self, agent: AgentHandle) -> int:
        return HUMAN_CHARACTERS


@dataclass(frozen=True, slots=True)
class LettaDirectoryWorld:
    directory: AgentDirectory
    template: AgentTemplate
    client: LettaClient

    async def delete_agent(self, member_id: str, agent_id: str) -> None:
        await self.client.as_member(member_id).agents.delete(agent_id)

    async def delete_organization(self, organization_id: str) -> None:
        await self.client.as_admin().delete(f"/v1/admin/orgs/?org_id={organization_id}", cast_to=object)

    async def human(self, agent: AgentHandle) -> str:
        return (await self._block(agent)).value

    async def write(self, agent: AgentHandle, text: str) -> None:
        await LettaMemory(self.client).update_block(agent, "human", text)

    async def room(self, agent: AgentHandle) -> int:
        return (await self._block(agent)).limit

    async def _block(self, agent: AgentHandle) -> MemoryBlock:
        return next(block for block in await LettaMemory(self.client).blocks(agent) if block.label == "human")


@pytest.fixture(params=["memory", "letta"], scope="module")
async def world(request: pytest.FixtureRequest) -> AsyncIterator[DirectoryWorld]:
    if request.param == "memory":
        yield FakeDirectoryWorld(FakeDirectory(), agent_template("gpt-4", "http://127.0.0.1:9/v1", 32_000))
    else:
        async with letta_world(request.getfixturevalue("stack_env")) as letta:
            yield LettaDirectoryWorld(letta.directory, letta.template, letta.client)


@pytest.fixture
def user_id() -> str:
    return str(uuid.uuid4())


async def test_an_organization_is_found_by_its_user(world: DirectoryWorld, user_id: str) -> None:
    assert await world.directory.find_organization(user_id) is None
    made = await world.directory.create_organization(user_id)
    assert await world.directory.find_organization(user_id) == made


async def test_every_step_after_the_organization_may_be_repeated(world: DirectoryWorld, user_id: str) -> None:
    directory, template = world.directory, world.template
    organization = await directory.create_organization(user_id)

    async def make() -> tuple[str, ...]:
        member = await directory.ensure_member(organization, user_id)
        await directory.ensure_tools(member)
        provider = await directory.ensure_provider(member, KEY, template)
        agent = await directory.ensure_agent(member, user_id, "Ada", template)
        return member, provider, agent, await directory.ensure_conversation(member, agent)

    assert await make() == await make()


async def test_an_organization_exists_until_it_is_deleted(world: DirectoryWorld, user_id: str) -> None:
    made = await world.directory.create_organization(user_id)
    assert await world.directory.has_organization(made)
    assert not await world.directory.has_organization(f"org-{uuid.uuid4()}")
    await world.delete_organization(made)
    assert not await world.directory.has_organization(made)


async def test_the_recorded_agent_and_conversation_are_replaced_only_if_deleted(
    world: DirectoryWorld, user_id: str
) -> None:
    directory, template = world.directory, world.template
    organization = await directory.create_organization(user_id)
    member = await directory.ensure_member(organization, user_id)
    await directory.ensure_tools(member)
    await directory.ensure_provider(member, KEY, template)

    async def ensure(agent: str | None, conversation: str | None) -> tuple[str, str]:
        found = await directory.ensure_agent(member, user_id, "Ada", template, known=agent)
        return found, await directory.ensure_conversation(member, found, known=conversation)

    first = await ensure(None, None)
    assert await ensure(*first) == first
    assert await ensure(f"agent-{uuid.uuid4()}", f"conv-{uuid.uuid4()}") == first
    await world.delete_agent(member, first[0])
    second = await ensure(*first)
    assert not set(first) & set(second)
    assert await ensure(*second) == second


async def test_an_agent_needs_its_tools_first(world: DirectoryWorld, user_id: str) -> None:
    organization = await world.directory.create_organization(user_id)
    member = await world.directory.ensure_member(organization, user_id)
    with pytest.raises(PlatformError):
        await world.directory.ensure_agent(member, user_id, None, world.template)


async def test_two_users_share_nothing(world: DirectoryWorld) -> None:
    made = []
    for _ in range(2):
        user_id = str(uuid.uuid4())
        organization = await world.directory.create_organization(user_id)
        member = await world.directory.ensure_member(organization, user_id)
        await world.directory.ensure_tools(member)
        provider = await world.directory.ensure_provider(member, KEY, world.template)
        agent = await world.directory.ensure_agent(member, user_id, None, world.template)
        conversation = await world.directory.ensure_conversation(member, agent)
        made.append({organization, member, provider, agent, conversation})
    assert len(made[0]) == 5
    assert not made[0] & made[1]


@pytest.fixture
async def agent(world: DirectoryWorld, user_id: str) -> AgentHandle:
    """A new agent whose user is called Ada."""
    member = await world.directory.ensure_member(await world.directory.create_organization(user_id), user_id)
    await world.directory.ensure_tools(member)
    await world.directory.ensure_provider(member, KEY, world.template)
    agent = await world.directory.ensure_agent(member, user_id, "Ada", world.template)
    return AgentHandle(member, agent, await world.directory.ensure_conversation(member, agent))


async def test_a_new_name_replaces_only_the_previous_one(world: DirectoryWorld, agent: AgentHandle) -> None:
    assert await world.human(agent) == "User's name: Ada"
    await world.write(agent, "User's name: Ada\nLikes green tea.\n")

    for _ in range(2):
        await world.directory.write_name(agent, "Ada", "Grace Hopper")

    assert await world.human(agent) == "User's name: Grace Hopper\nLikes green tea.\n"


async def test_a_name_that_does_not_fit_does_not_change_the_memory(world: DirectoryWorld, agent: AgentHandle) -> None:
    full = "User's name: Ada\n".ljust(await world.room(agent), "x")
    await world.write(agent, full)

    with pytest.raises(PlatformError) as refusal:
        await world.directory.write_name(agent, "Ada", "Grace Hopper")

    assert refusal.value.code is ErrorCode.TOO_LARGE
    assert await world.human(agent) == full


async def test_an_agent_begins_a_new_conversation_and_the_others_are_deleted(
    world: DirectoryWorld, agent: AgentHandle
) -> None:
    directory = world.directory
    begun = [replace(agent, conversation_id=await directory.begin_conversation(agent)) for _ in range(2)]
    assert len({agent.conversation_id, *(one.conversation_id for one in begun)}) == 3
    for _ in range(2):
        await directory.delete_other_conversations(begun[1])
    for known in (begun[1].conversation_id, agent.conversation_id):
        found = await directory.ensure_conversation(agent.member_id, agent.agent_id, known=known)
        assert found == begun[1].conversation_id


async def test_a_conversation_of_an_agent_that_is_gone_cannot_begin(world: DirectoryWorld, agent: AgentHandle) -> None:
    await world.delete_agent(agent.member_id, agent.agent_id)
    with pytest.raises(AgentGoneError):
        await world.directory.begin_conversation(agent)


async def test_everything_of_a_user_is_deleted_and_nothing_of_another(
    world: DirectoryWorld, agent: AgentHandle, user_id: str
) -> None:
    directory = world.directory
    organization = await directory.find_organization(user_id)
    assert organization is not None
    other_user = str(uuid.uuid4())
    other = await directory.create_organization(other_user)
    member = await directory.ensure_member(other, other_user)
    for member_id in (agent.member_id, None):
        await directory.delete_everything(organization, member_id)
    assert await directory.find_organization(user_id) is None
    assert not await directory.has_organization(organization)
    with pytest.raises(AgentGoneError):
        await directory.begin_conversation(agent)
    assert await directory.find_organization(other_user) == other
    assert await directory.ensure_member(other, other_user) == member


@pytest.mark.parametrize("has_member", [True, False])
async def test_what_an_interrupted_registration_left_is_deleted(
    world: DirectoryWorld, user_id: str, has_member: bool
) -> None:
    organization = await world.directory.create_organization(user_id)
    if has_member:
        await world.directory.ensure_member(organization, user_id)
    await world.directory.delete_everything(organization, None)
    assert await world.directory.find_organization(user_id) is None
