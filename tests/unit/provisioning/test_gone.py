"""An agent that its service does not find: looked for again, and made anew only where it is certainly gone."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from server.ports import AgentHandle
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.provisioning.steps import AGENT_ANEW, CONVERSATION_ANEW
from tests.unit.provisioning.world import ANN, OTHER_TEMPLATE, Killed, World, unavailable

EMAIL = "ann@example.com"
NO_ORGANIZATION = "The agent service no longer knows your agent. This needs an operator."


class ImpatientError(Exception):
    """Raised in place of the pause before a second try."""


async def impatiently(_seconds: float) -> None:
    raise ImpatientError


async def look_again(world: World, gone: AgentHandle) -> AgentHandle:
    return await world.process().look_again(ANN, gone, timeout=30)


async def test_a_deleted_agent_is_made_anew_and_the_user_told(
    world: World, logged: list[MutableMapping[str, Any]]
) -> None:
    process = world.process()
    gone = await process.ready(ANN, EMAIL)
    world.delete_agent()
    world.events.clear()
    made = await process.look_again(ANN, gone, timeout=30)
    assert made.agent_id != gone.agent_id
    assert await process.ready(ANN) == made
    world.assert_one_of_everything(reason=AGENT_ANEW)
    assert [(event.status, event.reason) for event in world.events] == [
        (AgentStatus.PROVISIONING, AGENT_ANEW),
        (AgentStatus.ACTIVE, AGENT_ANEW),
    ]
    (told,) = [event for event in logged if event["event"] == "agent.replaced"]
    assert (told["user_id"], told["old"], told["new"]) == (ANN, gone.agent_id, made.agent_id)


async def test_a_deleted_conversation_begins_again_with_the_same_agent(
    world: World, logged: list[MutableMapping[str, Any]]
) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.directory.members[gone.member_id].conversations.clear()
    made = await look_again(world, gone)
    assert (made.agent_id, made.conversation_id != gone.conversation_id) == (gone.agent_id, True)
    world.assert_one_of_everything(reason=CONVERSATION_ANEW)
    (told,) = [event for event in logged if event["event"] == "conversation.replaced"]
    assert (told["old"], told["new"]) == (gone.conversation_id, made.conversation_id)


async def test_an_agent_that_is_there_after_all_is_left_as_it_is(world: World) -> None:
    agent = await world.process().ready(ANN, EMAIL)
    world.events.clear()
    assert await look_again(world, agent) == agent
    world.assert_one_of_everything()
    assert world.events == []


async def test_an_agent_that_lost_its_tag_is_found_by_its_id(world: World) -> None:
    agent = await world.process().ready(ANN, EMAIL)
    world.directory.members[agent.member_id].agents[0].user_id = "nobody"
    assert await look_again(world, agent) == agent


async def test_a_deleted_member_is_replaced_and_the_agent_kept(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    old = world.directory.members.pop(gone.member_id)
    other = type(old)("member-of-an-operator", old.organization_id, agents=old.agents, conversations=old.conversations)
    world.directory.members[other.id] = other
    found = await look_again(world, gone)
    assert (found.agent_id, found.member_id) == (gone.agent_id, other.id)


async def test_an_agent_that_was_replaced_meanwhile_is_not_looked_for(world: World) -> None:
    process = world.process()
    gone = await process.ready(ANN, EMAIL)
    world.delete_agent()
    made = await look_again(world, gone)
    world.calls.clear()
    assert await process.look_again(ANN, gone, timeout=30) == made
    assert world.calls == ["get"]


async def test_all_who_miss_an_agent_share_one_look(world: World) -> None:
    process = world.process()
    gone = await process.ready(ANN, EMAIL)
    world.delete_agent()
    found = await asyncio.gather(*(process.look_again(ANN, gone, timeout=30) for _ in range(3)))
    assert len({agent.agent_id for agent in found}) == 1
    assert world.calls.count("has_organization") == 1
    world.assert_one_of_everything(reason=AGENT_ANEW)


@pytest.mark.parametrize("asked", ["look_again", "config"])
async def test_nothing_is_made_at_an_agent_service_that_lost_the_organization(
    world: World, logged: list[MutableMapping[str, Any]], asked: str
) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.empty_agent_service()
    if asked == "config":
        world.template = OTHER_TEMPLATE
    for _ in range(2):
        with pytest.raises(PlatformError) as refused:
            await (look_again(world, gone) if asked == "look_again" else world.process().ready(ANN))
        assert refused.value.code is ErrorCode.AGENT_UNAVAILABLE
    assert (world.directory.organizations, world.directory.members) == ({}, {})
    account = world.account()
    assert (account.agent_status, account.handle) == (AgentStatus.FAILED, gone)
    if asked == "look_again":
        assert (account.status_reason, refused.value.message) == (NO_ORGANIZATION, NO_ORGANIZATION)
        assert (refused.value.retryable, refused.value.retry_after) == (True, 60.0)
        told = [event for event in logged if event["event"] == "agent.organization_gone"]
        assert {(event["log_level"], event["organization_id"]) for event in told} == {
            ("error", account.organization_id)
        }


async def test_a_failed_account_stays_failed_while_it_is_retried_and_fails_again(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.empty_agent_service()
    world.events.clear()
    for _ in range(3):
        with pytest.raises(PlatformError):
            await look_again(world, gone)
    with pytest.raises(PlatformError):
        await world.process().attempt(ANN)
    assert [(event.status, event.reason) for event in world.events] == [(AgentStatus.FAILED, NO_ORGANIZATION)]
    world.events.clear()
    await world.process().attempt(ANN, rebuild=True)
    assert next(event.status for event in world.events) is AgentStatus.PROVISIONING
    world.assert_one_of_everything(reason=AGENT_ANEW)


async def test_a_rotation_makes_nothing_where_the_organization_is_gone_and_neither_does_the_background(
    world: World,
) -> None:
    await world.process().ready(ANN, EMAIL)
    world.empty_agent_service()
    with pytest.raises(PlatformError):
        await world.process().rotate_key(ANN, "gently")
    with pytest.raises(PlatformError):
        await world.process().attempt(ANN)
    with pytest.raises(PlatformError):
        await world.process().attempt(ANN, thorough=True)
    assert (world.directory.organizations, world.directory.members) == ({}, {})


async def test_an_agent_service_that_is_itself_again_heals_the_account(world: World) -> None:
    """The address named another one for a while, or a backup was restored."""
    gone = await world.process().ready(ANN, EMAIL)
    kept = dict(world.directory.organizations), dict(world.directory.members)
    world.empty_agent_service()
    with pytest.raises(PlatformError):
        await look_again(world, gone)
    world.directory.organizations.update(kept[0])
    world.directory.members.update(kept[1])
    assert await world.process().ready(ANN) == gone
    world.assert_one_of_everything()


async def test_a_repair_makes_everything_anew_and_the_user_is_told(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.empty_agent_service()
    with pytest.raises(PlatformError):
        await look_again(world, gone)
    made = await world.process().attempt(ANN, rebuild=True)
    assert made != gone
    world.assert_one_of_everything(reason=AGENT_ANEW)


async def test_an_unreachable_agent_service_loses_no_agent(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.delete_agent()
    for operation in ("has_organization", "ensure_agent"):
        world.fail(operation, unavailable(ErrorCode.LETTA_UNAVAILABLE))
        with pytest.raises(ImpatientError):
            await world.process(impatiently).look_again(ANN, gone, timeout=30)
        assert world.account().handle == gone
    world.intercept()
    await look_again(world, gone)
    world.assert_one_of_everything(reason=AGENT_ANEW)


async def test_what_was_lost_is_told_although_the_service_fails_in_between(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.delete_agent()
    world.fail("ensure_conversation", unavailable(ErrorCode.LETTA_UNAVAILABLE))
    with pytest.raises(ImpatientError):
        await world.process(impatiently).look_again(ANN, gone, timeout=30)
    assert world.account().status_reason == AGENT_ANEW
    world.intercept()
    await world.process().attempt(ANN)
    world.assert_one_of_everything(reason=AGENT_ANEW)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, 32))
async def test_a_look_killed_anywhere_is_finished_by_whoever_comes_next(world: World, nth: int, when: str) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.delete_agent()
    world.kill(nth, when=when)
    process = world.process()
    try:
        await process.look_again(ANN, gone, timeout=30)
    except Killed:
        await process.aclose()
    world.intercept()
    await look_again(world, gone)
    world.assert_one_of_everything(reason=AGENT_ANEW)


async def test_what_was_lost_is_said_until_the_next_repair(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.delete_agent()
    await look_again(world, gone)
    world.assert_one_of_everything(reason=AGENT_ANEW)
    world.template = OTHER_TEMPLATE
    await world.process().ready(ANN)
    world.assert_one_of_everything()


async def test_a_blocked_account_gets_no_agent_anew(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.delete_agent()
    world.set_account(agent_status=AgentStatus.BLOCKED)
    with pytest.raises(PlatformError) as refused:
        await look_again(world, gone)
    assert refused.value.code is ErrorCode.ACCOUNT_BLOCKED
