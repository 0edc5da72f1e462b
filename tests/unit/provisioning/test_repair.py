"""The background repair: completes accounts, ends its round at an unavailable service, backs off from failing users."""

import asyncio

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.provisioning import RepairLoop
from tests.unit.provisioning.world import ANN, BOB, OTHER_TEMPLATE, World, unavailable


@pytest.fixture
def loop(world: World) -> RepairLoop:
    return RepairLoop(world.process(), world.store, world.template.hash, sleep=world.sleep, clock=world.clock)


@pytest.fixture(autouse=True)
async def two_unfinished_users(world: World) -> None:
    await world.store.ensure(ANN, "ann@example.com", None)
    await world.store.ensure(BOB, "bob@example.com", None)


async def test_a_round_completes_every_unfinished_user(world: World, loop: RepairLoop) -> None:
    assert await loop.round()
    world.assert_exactly_one_of_each(ANN)
    world.assert_exactly_one_of_each(BOB)


async def test_users_of_another_configuration_are_updated(world: World, loop: RepairLoop) -> None:
    await loop.round()
    world.template = OTHER_TEMPLATE
    later = RepairLoop(world.process(), world.store, world.template.hash, sleep=world.sleep)
    assert await later.round()
    world.assert_exactly_one_of_each(ANN)


async def test_a_round_with_nothing_to_do_calls_no_service(world: World, loop: RepairLoop) -> None:
    await loop.round()
    world.calls.clear()
    await loop.round()
    assert world.calls == ["incomplete", "outdated_customers"]


async def test_an_unavailable_service_ends_the_round_at_the_first_user(world: World, loop: RepairLoop) -> None:
    world.fail("ensure_customer", unavailable(ErrorCode.LITELLM_UNAVAILABLE))
    assert not await loop.round()
    assert world.calls.count("ensure_customer") == 1


async def test_an_unavailable_database_ends_the_round(world: World, loop: RepairLoop) -> None:
    world.fail("incomplete", unavailable(ErrorCode.SUPABASE_UNAVAILABLE))
    assert not await loop.round()


async def test_a_user_who_keeps_failing_is_backed_off_from_while_others_are_repaired(
    world: World, loop: RepairLoop
) -> None:
    async def before(operation: str) -> None:
        if operation == "ensure_key" and world.account(BOB).intent != "key":
            raise PlatformError(ErrorCode.INTERNAL_ERROR, "No.", retryable=False)

    world.intercept(before)
    assert await loop.round()
    world.assert_exactly_one_of_each(BOB)
    assert world.account(ANN).agent_status is AgentStatus.FAILED
    world.calls.clear()
    await loop.round()
    assert "ensure_key" not in world.calls
    world.intercept()
    await world.sleep(90)
    await loop.round()
    world.assert_exactly_one_of_each(ANN)


async def test_the_interval_grows_while_a_service_is_unavailable(world: World) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 6:
            raise asyncio.CancelledError

    world.fail("incomplete", unavailable(ErrorCode.SUPABASE_UNAVAILABLE))
    loop = RepairLoop(world.process(), world.store, world.template.hash, interval=10, sleep=sleep)
    with pytest.raises(asyncio.CancelledError):
        await loop.run()
    assert waits[0] < 14
    assert all(56 <= wait <= 104 for wait in waits[3:])
