"""Deletion of an account: after a crash or failure at any point, the next run leaves nothing anywhere."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.accounts.deletion import STEPS, AccountDeletion, DeletionServices
from server.ports import FencedError, NewTurn
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Allowance
from server.protocol.shapes import AgentStatus, TurnStatus, Usage
from tests.fakes.database import LedgerEntry
from tests.fakes.store import FakeSessionStore
from tests.unit.provisioning.test_saga import EMAIL
from tests.unit.provisioning.test_saga import OPERATIONS as REGISTRATION
from tests.unit.provisioning.world import ANN, BOB, Killed, World, unavailable


def process(world: World, *, keep_spend: bool = True) -> AccountDeletion:
    """The deletions of another instance, or of the same after a restart."""
    services = DeletionServices(
        accounts=world.store,
        turns=FakeSessionStore(world.database),
        billing=world.billing,
        directory=world.directory,
        keep_spend=keep_spend,
        sleep=world.sleep,
    )
    return AccountDeletion(services, world._observe, clock=world.clock)


async def registered(world: World) -> None:
    for user_id in (ANN, BOB):
        provisioner = world.process()
        await provisioner.ready(user_id, world.database.users[user_id])
        await provisioner.aclose()


async def say(world: World, text: str, *, start: bool = True) -> str:
    store = FakeSessionStore(world.database)
    accepted = await store.accept(
        NewTurn(ANN, text, text, text, "enqueue"), "instance", start=start, allowance=Allowance()
    )
    return accepted.turn.id


def assert_nothing_is_left(world: World, user_id: str = ANN) -> None:
    database = world.database
    assert user_id not in database.users
    assert user_id not in database.profiles
    assert user_id not in database.sessions
    assert user_id not in database.key_hashes.values()
    assert not database.of_user(user_id)
    assert user_id not in world.billing.customers
    assert [key for key in world.billing.keys.values() if key.user_id == user_id] == []
    assert user_id not in world.directory.organizations.values()
    kept = world.directory.organizations
    assert all(member.organization_id in kept for member in world.directory.members.values())


def operations_of_a_deletion() -> list[str]:
    async def live() -> list[str]:
        world = World()
        await registered(world)
        world.calls.clear()
        assert await process(world).delete(ANN, timeout=10)
        return world.calls

    return asyncio.run(live())


OPERATIONS = operations_of_a_deletion()
POINTS = [
    pytest.param(number, when, id=f"{when} {name} ({number})")
    for number, name in enumerate(OPERATIONS, start=1)
    for when in ("before", "after")
]


async def begin_and_be_killed(world: World, nth: int, when: str) -> None:
    """Delete, and be killed at the nth operation. The claim is not released."""
    world.kill(nth, when=when)
    dying = process(world)
    with pytest.raises(Killed):
        await dying.delete(ANN, timeout=10)
    await dying.aclose()
    world.intercept()


async def test_a_deletion_leaves_nothing_of_its_user_and_all_of_others(world: World) -> None:
    await registered(world)
    assert await process(world).delete(ANN, timeout=10)
    assert_nothing_is_left(world)
    world.assert_exactly_one_of_each(BOB)


async def test_the_account_is_closed_before_anything_is_deleted(world: World) -> None:
    await registered(world)
    await process(world).begin(ANN)
    assert world.account().agent_status is AgentStatus.DELETING
    assert (world.events[-1].user_id, world.events[-1].status) == (ANN, AgentStatus.DELETING)
    with pytest.raises(PlatformError) as refusal:
        await say(world, "hello")
    assert refusal.value.code is ErrorCode.ACCOUNT_BLOCKED


@pytest.mark.parametrize(("nth", "when"), POINTS)
async def test_a_crash_at_any_point_is_completed_by_a_round_of_any_instance(world: World, nth: int, when: str) -> None:
    await registered(world)
    await begin_and_be_killed(world, nth, when)
    if ANN in world.database.profiles and world.account().agent_status is not AgentStatus.DELETING:
        assert (nth, when) == (1, "before")  # the user was told nothing, and asks again
        await process(world).begin(ANN)
    world.now += timedelta(minutes=1)
    assert await process(world).round()
    assert_nothing_is_left(world)
    world.assert_exactly_one_of_each(BOB)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, len(OPERATIONS)), st.sampled_from(("before", "after"))), max_size=5))
def test_any_series_of_crashes_leaves_nothing(crashes: list[tuple[int, str]]) -> None:
    async def live() -> None:
        world = World()
        await registered(world)
        await process(world).begin(ANN)
        for nth, when in crashes:
            world.kill(nth, when=when)
            dying = process(world)
            with suppress(Killed):
                await dying.run(ANN)
            await dying.aclose()
            world.intercept()
            world.now += timedelta(minutes=1)
        await process(world).run(ANN)
        assert_nothing_is_left(world)

    asyncio.run(live())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(2, len(REGISTRATION) + 1))
async def test_an_account_whose_registration_was_interrupted_anywhere_is_deleted_whole(
    world: World, nth: int, when: str
) -> None:
    world.kill(nth, when=when)
    dying = world.process()
    with pytest.raises(Killed):
        await dying.ready(ANN, EMAIL)
    await dying.aclose()
    world.intercept()
    assert await process(world).delete(ANN, timeout=10)
    assert_nothing_is_left(world)


async def test_organizations_are_searched_only_if_one_may_have_been_lost(world: World) -> None:
    await registered(world)
    await process(world).delete(ANN, timeout=10)
    assert world.directory.searches == 0


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("delete_customer", ErrorCode.LITELLM_UNAVAILABLE),
        ("delete_everything", ErrorCode.LETTA_UNAVAILABLE),
        ("delete", ErrorCode.SUPABASE_UNAVAILABLE),
    ],
)
async def test_a_service_that_is_unavailable_postpones_the_deletion(
    world: World, operation: str, code: ErrorCode
) -> None:
    await registered(world)
    deletion = process(world)
    world.fail(operation, unavailable(code))
    assert not await deletion.delete(ANN, timeout=10)
    assert not await deletion.round()
    assert world.account().agent_status is AgentStatus.DELETING
    world.intercept()
    assert await deletion.round()
    assert_nothing_is_left(world)


async def test_a_user_who_cannot_be_deleted_does_not_stop_the_deletion_of_others(world: World) -> None:
    await registered(world)
    deletion = process(world)
    await deletion.begin(ANN)
    await deletion.begin(BOB)

    async def refuse(operation: str) -> None:
        if operation == "delete_customer" and BOB not in world.billing.customers:
            return
        if operation == "delete_customer" and world.database.profiles[ANN].claimed_by == deletion.owner:
            raise PlatformError(ErrorCode.INTERNAL_ERROR, retryable=False)

    world.intercept(refuse)
    assert not await deletion.round()
    assert_nothing_is_left(world, BOB)
    world.calls.clear()
    assert await deletion.round()
    assert world.calls == ["unfinished_deletions"], "a user who failed rests"


async def test_the_running_turn_is_asked_to_stop_and_waited_for_before_anything_is_deleted(world: World) -> None:
    await registered(world)
    running, waiting = await say(world, "runs"), await say(world, "waits")
    asked: list[TurnStatus] = []

    async def sleep(seconds: float) -> None:
        row = world.database.turns[running]
        asked.append(row.turn.status)
        assert row.turn.cancel_requested_at is not None
        assert ANN in world.billing.customers
        row.turn = replace(row.turn, status=TurnStatus.CANCELLED)
        await world.sleep(seconds)

    deletion = process(world)
    deletion.services = replace(deletion.services, sleep=sleep)
    await deletion.begin(ANN)
    assert world.database.turns[waiting].turn.status is TurnStatus.CANCELLED
    await deletion.run(ANN)
    assert asked == [TurnStatus.RUNNING]
    assert_nothing_is_left(world)


async def test_a_turn_that_does_not_stop_postpones_the_deletion(world: World) -> None:
    await registered(world)
    await say(world, "runs")
    assert not await process(world).delete(ANN, timeout=10)
    assert ANN in world.billing.customers


async def test_an_account_that_is_being_provisioned_is_waited_for(world: World) -> None:
    await registered(world)
    claim = await world.store.claim(ANN, "another instance", 15.0)
    assert claim is not None
    began = world.now
    assert await process(world).delete(ANN, timeout=10)
    assert world.now - began >= timedelta(seconds=14)
    assert_nothing_is_left(world)


async def test_many_deletions_of_one_account_at_once_are_one(world: World) -> None:
    await registered(world)
    deletion = process(world)
    assert await asyncio.gather(*(deletion.delete(ANN, timeout=10) for _ in range(5))) == [True] * 5
    assert world.calls.count("delete_customer") == 1
    assert_nothing_is_left(world)


async def test_an_account_that_is_not_being_deleted_is_never_deleted(world: World) -> None:
    await registered(world)
    with pytest.raises(FencedError):
        await process(world).run(ANN)
    with pytest.raises(FencedError):
        await world.store.delete(ANN, keep_spend=False)
    world.assert_exactly_one_of_each()


async def test_an_unknown_user_is_not_found_and_a_deleted_one_is_done(world: World) -> None:
    with pytest.raises(PlatformError) as refusal:
        await process(world).begin("nobody")
    assert refusal.value.code is ErrorCode.UNAUTHORIZED
    await process(world).run("nobody")


@pytest.mark.parametrize("keep", [True, False])
async def test_what_was_spent_is_kept_once_and_without_a_name_if_the_settings_say_so(world: World, keep: bool) -> None:
    await registered(world)
    for request, cost in (("a", "0.25"), ("b", "0.5")):
        world.database.ledger[request] = LedgerEntry(
            ANN, None, None, "settled", "success", "gpt-4", Usage(), Decimal(cost), world.now
        )
    deletion = process(world, keep_spend=keep)
    world.kill(len(OPERATIONS) - 1, when="after")
    with pytest.raises(Killed):
        await deletion.delete(ANN, timeout=10)
    world.intercept()
    await process(world, keep_spend=keep).run(ANN)
    assert_nothing_is_left(world)
    kept = [(entry.user_id, entry.model, entry.cost) for entry in world.database.deleted_usage]
    assert kept == ([("", "gpt-4", Decimal("0.25")), ("", "gpt-4", Decimal("0.5"))] if keep else [])


def test_the_customer_goes_first_and_the_account_last() -> None:
    assert [name for name, _ in STEPS] == ["turns", "customer", "agent", "account"]
