"""What every AgentDirectory does: each step of making an agent may be repeated and never makes a second of anything."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from server.letta_adapter.directory import LettaDirectory
from server.letta_adapter.template import agent_template
from server.ports import AgentDirectory, AgentTemplate
from server.protocol.errors import PlatformError
from tests.fakes.directory import FakeDirectory
from tests.letta_world import letta_world

KEY = SecretStr("sk-first")


@dataclass(frozen=True, slots=True)
class DirectoryWorld:
    directory: AgentDirectory
    template: AgentTemplate


@pytest.fixture(params=["memory", "letta"], scope="module")
async def world(request: pytest.FixtureRequest) -> AsyncIterator[DirectoryWorld]:
    if request.param == "memory":
        yield DirectoryWorld(FakeDirectory(), agent_template("gpt-4", "http://127.0.0.1:9/v1", 32_000))
    else:
        async with letta_world(request.getfixturevalue("stack_env")) as letta:
            yield DirectoryWorld(LettaDirectory(letta.client), letta.template)


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
