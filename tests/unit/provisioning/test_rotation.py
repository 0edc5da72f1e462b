"""The rotation of a user's key: in use everywhere before the old one ends; completed by the next run after a crash."""

import asyncio
from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from server.keyring import KeyRing
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.provisioning import RepairLoop
from tests.fakes.billing import Key
from tests.unit.provisioning.world import ANN, Killed, World, unavailable

EMAIL = "ann@example.com"
NEW_SECRET = SecretStr("another secret key that is long enough too")


@pytest.fixture(autouse=True)
async def a_user(world: World) -> None:
    await world.process().ready(ANN, EMAIL)


def old_key(world: World) -> Key:
    """The key of the registration."""
    (found,) = [key for key in world.billing.keys.values() if key.value == world.billing.registered[0]]
    return found


def operations_of_a_rotation() -> list[str]:
    """The operations of an undisturbed rotation, in order."""

    async def rotate() -> list[str]:
        world = World()
        await world.process().ready(ANN, EMAIL)
        world.calls.clear()
        await world.process().rotate_key(ANN, "at once")
        return world.calls

    return asyncio.run(rotate())


OPERATIONS = operations_of_a_rotation()
STORED = OPERATIONS.index("record") + 1
"""The operation that stores the new key: a run killed before it has changed nothing."""
POINTS = [
    pytest.param(number, when, id=f"{when} {name} ({number})")
    for number, name in enumerate(OPERATIONS, start=1)
    for when in ("before", "after")
]


async def test_the_new_key_is_used_everywhere_and_the_agent_stays_the_same(world: World) -> None:
    before, old = world.account().handle, world.billing.key_of(ANN)
    assert await world.process().rotate_key(ANN, "gently") == before
    world.assert_exactly_one_of_each()
    assert world.billing.key_of(ANN) != old


async def test_the_old_key_stays_valid_for_ten_minutes(world: World) -> None:
    rotated = world.now
    await world.process().rotate_key(ANN, "gently")
    assert (old_key(world).expires, old_key(world).blocked) == (rotated + timedelta(minutes=10), False)


async def test_a_leaked_key_is_blocked_once_the_new_one_is_in_use(world: World) -> None:
    await world.process().rotate_key(ANN, "at once")
    assert old_key(world).blocked
    world.assert_exactly_one_of_each()
    assert OPERATIONS.index("block_other_keys") > OPERATIONS.index("ensure_provider")


async def test_a_second_rotation_does_not_extend_the_first_key(world: World) -> None:
    await world.process().rotate_key(ANN, "gently")
    until = old_key(world).expires
    await world.sleep(120)
    await world.process().rotate_key(ANN, "gently")
    assert old_key(world).expires == until
    world.assert_exactly_one_of_each()


async def test_the_new_key_is_stored_before_it_is_registered(world: World) -> None:
    stored_first: list[bool] = []

    async def before(operation: str) -> None:
        if operation in ("ensure_key", "ensure_provider"):
            stored_first.append(old_hash != world.key_hash())

    old_hash = world.key_hash()
    world.intercept(before)
    await world.process().rotate_key(ANN, "gently")
    assert stored_first == [True, True]


@pytest.mark.parametrize(("nth", "when"), POINTS)
async def test_a_rotation_killed_at_any_point_is_completed_by_the_next_run(world: World, nth: int, when: str) -> None:
    old = world.billing.key_of(ANN)
    world.kill(nth, when=when)
    process = world.process()
    with pytest.raises(Killed):
        await process.rotate_key(ANN, "at once")
    await process.aclose()
    world.intercept()
    await world.process().ready(ANN)
    world.assert_exactly_one_of_each()
    stored = nth > STORED or (nth, when) == (STORED, "after")
    assert (world.billing.key_of(ANN) != old) == stored


async def test_a_killed_rotation_is_completed_by_the_repair_loop(world: World) -> None:
    old = world.billing.key_of(ANN)
    world.kill(STORED, when="after")
    process = world.process()
    with pytest.raises(Killed):
        await process.rotate_key(ANN, "gently")
    await process.aclose()
    world.intercept()
    await world.sleep(60)
    assert await RepairLoop(world.process(), world.store, world.template.hash, sleep=world.sleep).round()
    world.assert_exactly_one_of_each()
    assert world.billing.key_of(ANN) != old


@pytest.mark.parametrize("operation", ["ensure_key", "ensure_provider", "block_other_keys"])
async def test_a_rotation_during_an_outage_leaves_the_agent_active_and_can_be_repeated(
    world: World, operation: str
) -> None:
    world.fail(operation, unavailable(ErrorCode.LITELLM_UNAVAILABLE))
    with pytest.raises(PlatformError):
        await world.process().rotate_key(ANN, "at once")
    assert world.account().agent_status is AgentStatus.ACTIVE
    world.intercept()
    await world.process().rotate_key(ANN, "at once")
    world.assert_exactly_one_of_each()
    assert old_key(world).blocked


async def test_rotations_at_the_same_time_leave_one_key(world: World) -> None:
    await asyncio.gather(*(world.process().rotate_key(ANN, "at once") for _ in range(3)))
    world.assert_exactly_one_of_each()
    assert len(world.billing.registered) == 4


async def test_each_rotation_in_one_process_is_a_separate_run(world: World) -> None:
    process = world.process()
    await asyncio.gather(process.ready(ANN), process.rotate_key(ANN, "gently"), process.rotate_key(ANN, "gently"))
    world.assert_exactly_one_of_each()
    assert len(world.billing.registered) == 3


async def test_a_key_that_only_the_previous_secret_decrypts_is_rotated(world: World) -> None:
    world.keys = KeyRing(NEW_SECRET, SecretStr("a secret key that is long enough for this"))
    await world.process().rotate_key(ANN, "gently")
    world.assert_exactly_one_of_each()
    world.keys = KeyRing(NEW_SECRET)
    world.assert_exactly_one_of_each()


async def test_an_unreadable_key_is_rotated(world: World) -> None:
    world.keys = KeyRing(NEW_SECRET)
    await world.process().rotate_key(ANN, "at once")
    world.assert_exactly_one_of_each()
    assert old_key(world).blocked


async def test_a_user_without_a_key_gets_the_first_one(world: World) -> None:
    await world.store.ensure("bob", "bob@example.com", None)
    await world.process().rotate_key("bob", "gently")
    world.assert_exactly_one_of_each("bob")


async def test_a_blocked_account_gets_no_new_key(world: World) -> None:
    world.set_account(agent_status=AgentStatus.BLOCKED)
    with pytest.raises(PlatformError) as raised:
        await world.process().rotate_key(ANN, "gently")
    assert raised.value.code is ErrorCode.ACCOUNT_BLOCKED
    assert len(world.billing.registered) == 1


async def test_a_rotation_does_not_change_keys_made_by_hand(world: World) -> None:
    world.billing.keys["by hand"] = Key("sk-by-hand", ANN, alias=None)
    await world.process().rotate_key(ANN, "at once")
    assert world.billing.keys["by hand"] == Key("sk-by-hand", ANN, alias=None)


async def test_no_key_appears_in_the_log(world: World, logged: list[MutableMapping[str, Any]]) -> None:
    await world.process().rotate_key(ANN, "at once")
    assert "key.rotated" in {event["event"] for event in logged}
    for key in world.billing.keys.values():
        assert key.value not in str(logged)
