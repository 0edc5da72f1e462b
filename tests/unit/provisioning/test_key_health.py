"""A key that the model gateway refuses: the reason is stored and published, and an operator's repair removes it."""

import asyncio
from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from server.keyring import KeyRing
from server.protocol.codes import ErrorCode
from server.protocol.shapes import AgentStatus
from server.provisioning import Provisioner
from server.provisioning.key_health import REASONS
from tests.unit.provisioning.world import ANN, Event, World, unavailable

EMAIL = "ann@example.com"


@pytest.fixture
async def process(world: World) -> Provisioner:
    process = world.process()
    await process.ready(ANN, EMAIL)
    world.events.clear()
    return process


def spoil(world: World, how: str) -> None:
    key = world.billing.keys[world.key_hash()]
    if how == "blocked":
        key.blocked = True
    elif how == "expired":
        key.expires = world.now - timedelta(seconds=1)
    else:
        del world.billing.keys[world.key_hash()]


async def refused(process: Provisioner) -> None:
    """Report a refused key, and wait until its check has ended."""
    before = asyncio.all_tasks()
    process.key_refused(ANN)
    await asyncio.gather(*(asyncio.all_tasks() - before))


@pytest.mark.parametrize("how", ["blocked", "missing", "expired"])
async def test_the_reason_is_stored_and_published(world: World, process: Provisioner, how: str) -> None:
    spoil(world, how)
    await refused(process)
    reason = {str(state): text for state, text in REASONS.items()}[how]
    assert (world.account().agent_status, world.account().status_reason) == (AgentStatus.ACTIVE, reason)
    assert world.events == [Event(ANN, AgentStatus.ACTIVE, reason)]


async def test_the_reason_is_published_once_for_repeated_refusals(world: World, process: Provisioner) -> None:
    spoil(world, "blocked")
    await refused(process)
    await refused(process)
    assert len(world.events) == 1


async def test_the_warning_does_not_contain_the_key(
    world: World, process: Provisioner, logged: list[MutableMapping[str, Any]]
) -> None:
    spoil(world, "blocked")
    await refused(process)
    (warning,) = [event for event in logged if event["event"] == "key.refused"]
    assert (warning["user_id"], warning["state"], warning["log_level"]) == (ANN, "blocked", "warning")
    assert world.billing.registered[0] not in str(logged)


@pytest.mark.parametrize("how", ["blocked", "missing", "expired"])
async def test_only_a_repair_restores_the_key_and_clears_the_reason(
    world: World, process: Provisioner, how: str
) -> None:
    spoil(world, how)
    await refused(process)
    await process.ready(ANN)
    assert world.account().status_reason is not None
    await world.process().attempt(ANN, thorough=True)
    world.assert_exactly_one_of_each()
    assert world.billing.registered[-1] == world.billing.registered[0]
    assert world.events[-1] == Event(ANN, AgentStatus.ACTIVE, None)


async def test_a_rotation_clears_the_reason_too(world: World, process: Provisioner) -> None:
    spoil(world, "blocked")
    await refused(process)
    await world.process().rotate_key(ANN, "gently")
    world.assert_exactly_one_of_each()


async def test_an_agent_with_another_key_gets_the_users_key(world: World, process: Provisioner) -> None:
    (member,) = world.directory.members.values()
    member.key = "sk-of-an-old-backup"
    await refused(process)
    world.assert_exactly_one_of_each()


async def test_the_check_runs_in_the_background_and_concurrent_refusals_share_it(
    world: World, process: Provisioner
) -> None:
    spoil(world, "blocked")
    world.calls.clear()
    for _ in range(5):
        process.key_refused(ANN)
    assert world.calls == []
    await refused(process)
    for _ in range(50):
        await asyncio.sleep(0)
    assert world.calls.count("key_state") == 1


@pytest.mark.parametrize("operation", ["get", "key_state", "claim_provisioning", "record"])
async def test_a_check_that_an_outage_ended_is_repeated_at_the_next_refusal(
    world: World, process: Provisioner, operation: str
) -> None:
    spoil(world, "blocked")
    world.fail(operation, unavailable(ErrorCode.SUPABASE_UNAVAILABLE))
    await refused(process)
    assert world.account().status_reason is None
    world.intercept()
    await refused(process)
    assert world.account().status_reason == REASONS["blocked"]


async def test_an_unreadable_key_is_not_checked(world: World) -> None:
    await world.process().ready(ANN, EMAIL)
    world.keys = KeyRing(SecretStr("another secret key, the old one was lost"))
    await refused(world.process())
    assert world.account().status_reason is None


async def test_no_reason_is_stored_while_another_instance_provisions_the_account(
    world: World, process: Provisioner
) -> None:
    spoil(world, "blocked")
    claim = await world.store.claim(ANN, "another instance", 60)
    assert claim is not None
    await refused(process)
    assert world.account().status_reason is None


async def test_an_account_that_is_not_active_keeps_its_reason(world: World, process: Provisioner) -> None:
    spoil(world, "blocked")
    world.set_account(agent_status=AgentStatus.BLOCKED, status_reason="Asked to leave.")
    await refused(process)
    assert world.account().status_reason == "Asked to leave."


async def test_no_reason_is_stored_for_a_key_that_was_rotated_meanwhile(world: World, process: Provisioner) -> None:
    spoil(world, "blocked")

    async def rotate(operation: str) -> None:
        if operation == "key_state":
            world.intercept()
            await world.process().rotate_key(ANN, "gently")

    world.intercept(after=rotate)
    await refused(process)
    world.assert_exactly_one_of_each()


async def test_an_unknown_user_and_a_closed_provisioner_are_ignored(world: World, process: Provisioner) -> None:
    await process.aclose()
    process.key_refused(ANN)
    await refused(world.process())
    stranger = world.process()
    before = asyncio.all_tasks()
    stranger.key_refused("nobody")
    await asyncio.gather(*(asyncio.all_tasks() - before))


async def test_shutdown_stops_a_check(world: World, process: Provisioner) -> None:
    async def never(operation: str) -> None:
        if operation == "key_state":
            await asyncio.Event().wait()

    world.intercept(never)
    process.key_refused(ANN)
    await asyncio.sleep(0)
    await process.aclose()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == f"key of {ANN}"]
