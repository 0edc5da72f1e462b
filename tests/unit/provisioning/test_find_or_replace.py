"""An agent that its service does not find: searched for again, and replaced only if it is certainly gone."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from server.ports import AgentHandle
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.provisioning.steps import AGENT_REPLACED, CONVERSATION_REPLACED
from tests.unit.provisioning.world import ANN, OTHER_TEMPLATE, Killed, World, unavailable

EMAIL = "ann@example.com"
NO_ORGANIZATION = "The agent service no longer knows your agent. This needs an operator."


class RetryError(Exception):
    """Raised in place of the pause before a retry."""


async def without_retry(_seconds: float) -> None:
    raise RetryError


async def find_or_replace(world: World, gone: AgentHandle) -> AgentHandle:
    return await world.process().find_or_replace(ANN, gone, timeout=30)


async def test_a_deleted_agent_is_replaced_with_a_reason_for_the_user(
    world: World, logged: list[MutableMapping[str, Any]]
) -> None:
    process = world.process()
    gone = await process.ready(ANN, EMAIL)
    world.delete_agent()
    world.events.clear()
    made = await process.find_or_replace(ANN, gone, timeout=30)
    assert made.agent_id != gone.agent_id
    assert await process.ready(ANN) == made
    world.assert_exactly_one_of_each(reason=AGENT_REPLACED)
    assert [(event.status, event.reason) for event in world.events] == [
        (AgentStatus.PROVISIONING, AGENT_REPLACED),
        (AgentStatus.ACTIVE, AGENT_REPLACED),
    ]
    (event,) = [event for event in logged if event["event"] == "agent.replaced"]
    assert (event["user_id"], event["old"], event["new"]) == (ANN, gone.agent_id, made.agent_id)


async def test_a_deleted_conversation_is_replaced_with_the_same_agent(
    world: World, logged: list[MutableMapping[str, Any]]
) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.directory.members[gone.member_id].conversations.clear()
    made = await find_or_replace(world, gone)
    assert (made.agent_id, made.conversation_id != gone.conversation_id) == (gone.agent_id, True)
    world.assert_exactly_one_of_each(reason=CONVERSATION_REPLACED)
    (event,) = [event for event in logged if event["event"] == "conversation.replaced"]
    assert (event["old"], event["new"]) == (gone.conversation_id, made.conversation_id)


async def test_an_agent_that_is_found_again_does_not_change(world: World) -> None:
    agent = await world.process().ready(ANN, EMAIL)
    world.events.clear()
    assert await find_or_replace(world, agent) == agent
    world.assert_exactly_one_of_each()
    assert world.events == []


async def test_an_agent_that_lost_its_tag_is_found_by_its_id(world: World) -> None:
    agent = await world.process().ready(ANN, EMAIL)
    world.directory.members[agent.member_id].agents[0].user_id = "nobody"
    assert await find_or_replace(world, agent) == agent


async def test_a_deleted_member_is_replaced_and_the_agent_kept(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    old = world.directory.members.pop(gone.member_id)
    other = type(old)("member-of-an-operator", old.organization_id, agents=old.agents, conversations=old.conversations)
    world.directory.members[other.id] = other
    found = await find_or_replace(world, gone)
    assert (found.agent_id, found.member_id) == (gone.agent_id, other.id)


async def test_an_agent_that_was_replaced_meanwhile_is_not_searched_for(world: World) -> None:
    process = world.process()
    gone = await process.ready(ANN, EMAIL)
    world.delete_agent()
    made = await find_or_replace(world, gone)
    world.calls.clear()
    assert await process.find_or_replace(ANN, gone, timeout=30) == made
    assert world.calls == ["get"]


async def test_concurrent_callers_share_one_search(world: World) -> None:
    process = world.process()
    gone = await process.ready(ANN, EMAIL)
    world.delete_agent()
    found = await asyncio.gather(*(process.find_or_replace(ANN, gone, timeout=30) for _ in range(3)))
    assert len({agent.agent_id for agent in found}) == 1
    assert world.calls.count("has_organization") == 1
    world.assert_exactly_one_of_each(reason=AGENT_REPLACED)


@pytest.mark.parametrize("asked", ["find_or_replace", "config"])
async def test_nothing_is_created_at_an_agent_service_that_lost_the_organization(
    world: World, logged: list[MutableMapping[str, Any]], asked: str
) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.empty_agent_service()
    if asked == "config":
        world.template = OTHER_TEMPLATE
    for _ in range(2):
        with pytest.raises(PlatformError) as refused:
            await (find_or_replace(world, gone) if asked == "find_or_replace" else world.process().ready(ANN))
        assert refused.value.code is ErrorCode.AGENT_UNAVAILABLE
    assert (world.directory.organizations, world.directory.members) == ({}, {})
    account = world.account()
    assert (account.agent_status, account.handle) == (AgentStatus.FAILED, gone)
    if asked == "find_or_replace":
        assert (account.status_reason, refused.value.message) == (NO_ORGANIZATION, NO_ORGANIZATION)
        assert (refused.value.retryable, refused.value.retry_after) == (True, 60.0)
        errors = [event for event in logged if event["event"] == "agent.organization_gone"]
        assert {(event["log_level"], event["organization_id"]) for event in errors} == {
            ("error", account.organization_id)
        }


async def test_a_failed_account_stays_failed_while_it_is_retried_and_fails_again(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.empty_agent_service()
    world.events.clear()
    for _ in range(3):
        with pytest.raises(PlatformError):
            await find_or_replace(world, gone)
    with pytest.raises(PlatformError):
        await world.process().attempt(ANN)
    assert [(event.status, event.reason) for event in world.events] == [(AgentStatus.FAILED, NO_ORGANIZATION)]
    world.events.clear()
    await world.process().attempt(ANN, rebuild=True)
    assert next(event.status for event in world.events) is AgentStatus.PROVISIONING
    world.assert_exactly_one_of_each(reason=AGENT_REPLACED)


async def test_neither_a_rotation_nor_a_repair_creates_an_organization_that_is_gone(
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


async def test_an_account_is_complete_again_once_its_agent_service_has_recovered(world: World) -> None:
    """The address was another server's for a while, or a backup was restored."""
    gone = await world.process().ready(ANN, EMAIL)
    before = dict(world.directory.organizations), dict(world.directory.members)
    world.empty_agent_service()
    with pytest.raises(PlatformError):
        await find_or_replace(world, gone)
    world.directory.organizations.update(before[0])
    world.directory.members.update(before[1])
    assert await world.process().ready(ANN) == gone
    world.assert_exactly_one_of_each()


async def test_a_rebuild_creates_everything_again_with_a_reason_for_the_user(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.empty_agent_service()
    with pytest.raises(PlatformError):
        await find_or_replace(world, gone)
    made = await world.process().attempt(ANN, rebuild=True)
    assert made != gone
    world.assert_exactly_one_of_each(reason=AGENT_REPLACED)


async def test_an_unavailable_agent_service_loses_no_agent(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.delete_agent()
    for operation in ("has_organization", "ensure_agent"):
        world.fail(operation, unavailable(ErrorCode.LETTA_UNAVAILABLE))
        with pytest.raises(RetryError):
            await world.process(without_retry).find_or_replace(ANN, gone, timeout=30)
        assert world.account().handle == gone
    world.intercept()
    await find_or_replace(world, gone)
    world.assert_exactly_one_of_each(reason=AGENT_REPLACED)


async def test_the_reason_is_stored_although_the_service_fails_during_the_run(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.delete_agent()
    world.fail("ensure_conversation", unavailable(ErrorCode.LETTA_UNAVAILABLE))
    with pytest.raises(RetryError):
        await world.process(without_retry).find_or_replace(ANN, gone, timeout=30)
    assert world.account().status_reason == AGENT_REPLACED
    world.intercept()
    await world.process().attempt(ANN)
    world.assert_exactly_one_of_each(reason=AGENT_REPLACED)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, 32))
async def test_a_search_killed_at_any_point_is_completed_by_the_next_run(world: World, nth: int, when: str) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.delete_agent()
    world.kill(nth, when=when)
    process = world.process()
    try:
        await process.find_or_replace(ANN, gone, timeout=30)
    except Killed:
        await process.aclose()
    world.intercept()
    await find_or_replace(world, gone)
    world.assert_exactly_one_of_each(reason=AGENT_REPLACED)


async def test_the_reason_stays_until_the_next_repair(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.delete_agent()
    await find_or_replace(world, gone)
    world.assert_exactly_one_of_each(reason=AGENT_REPLACED)
    world.template = OTHER_TEMPLATE
    await world.process().ready(ANN)
    world.assert_exactly_one_of_each()


async def test_a_blocked_account_gets_no_new_agent(world: World) -> None:
    gone = await world.process().ready(ANN, EMAIL)
    world.delete_agent()
    world.set_account(agent_status=AgentStatus.BLOCKED)
    with pytest.raises(PlatformError) as refused:
        await find_or_replace(world, gone)
    assert refused.value.code is ErrorCode.ACCOUNT_BLOCKED
