"""What the saga creates, in which order; after a crash or failure at any point nothing is duplicated or missing."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from server.keyring import KeyRing
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.provisioning.steps import AGENT_REPLACED, STEPS
from tests.unit.provisioning.world import ANN, BOB, OTHER_TEMPLATE, Killed, World, unavailable

EMAIL = "ann@example.com"


def operations_of_a_registration() -> list[str]:
    """The operations of an undisturbed registration, in order."""
    world = World()
    asyncio.run(world.process().ready(ANN, EMAIL))
    return world.calls


OPERATIONS = operations_of_a_registration()
STEP_OPERATIONS = [name for name in OPERATIONS if name.startswith(("ensure_", "create_"))]
POINTS = [
    pytest.param(number, when, id=f"{when} {name} ({number})")
    for number, name in enumerate(OPERATIONS, start=1)
    for when in ("before", "after")
]


async def register_and_be_killed(world: World, nth: int, when: str) -> None:
    """Register, and be killed at the nth operation. The claim is not released."""
    world.kill(nth, when=when)
    process = world.process()
    with pytest.raises(Killed):
        await process.ready(ANN, EMAIL)
    await process.aclose()
    world.intercept()


async def test_registration_creates_one_of_everything(world: World) -> None:
    handle = await world.process().ready(ANN, EMAIL)
    world.assert_exactly_one_of_each()
    assert handle == world.account().handle


async def test_the_intent_of_every_step_is_stored_before_it_runs(world: World) -> None:
    seen: list[tuple[str, str | None]] = []

    async def before(operation: str) -> None:
        if operation in STEP_OPERATIONS and operation != "ensure":
            seen.append((operation, world.account().intent))

    world.intercept(before)
    await world.process().ready(ANN, EMAIL)
    assert seen == [
        ("ensure_customer", "customer"),
        ("ensure_key", "key"),
        ("create_organization", "organization"),
        ("ensure_member", "member"),
        ("ensure_tools", "tools"),
        ("ensure_provider", "provider"),
        ("ensure_agent", "agent"),
        ("ensure_conversation", "conversation"),
    ]
    assert world.account().intent is None


async def test_the_intent_of_a_step_is_stored_together_with_the_result_of_the_one_before(world: World) -> None:
    await world.process().ready(ANN, EMAIL)
    assert world.calls.count("record") == len(STEPS) + 1


async def test_the_key_is_stored_encrypted_before_it_is_registered(world: World) -> None:
    stored: list[str | None] = []

    async def before(operation: str) -> None:
        if operation == "ensure_key":
            stored.append(world.account().encrypted_key)

    world.intercept(before)
    await world.process().ready(ANN, EMAIL)
    (text,) = stored
    assert text is not None
    assert text.startswith("v1:")
    assert world.keys.open(ANN, text).get_secret_value() == world.billing.key_of(ANN)


@pytest.mark.parametrize(("nth", "when"), POINTS)
async def test_a_crash_at_any_point_is_repaired_by_the_next_run(world: World, nth: int, when: str) -> None:
    await register_and_be_killed(world, nth, when)
    await world.process().ready(ANN, EMAIL)
    world.assert_exactly_one_of_each()
    assert len(world.billing.registered) == 1


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(1, len(OPERATIONS)), st.sampled_from(("before", "after"))), max_size=6))
def test_any_series_of_crashes_leaves_one_of_everything(crashes: list[tuple[int, str]]) -> None:
    async def live() -> None:
        world = World()
        for nth, when in crashes:
            world.kill(nth, when=when)
            process = world.process()
            try:
                await process.ready(ANN, EMAIL)
            except Killed:
                await process.aclose()
            world.intercept()
        await world.process().ready(ANN, EMAIL)
        world.assert_exactly_one_of_each()
        assert len(world.billing.registered) == 1

    asyncio.run(live())


async def test_all_organizations_are_searched_only_when_one_may_have_been_lost(world: World) -> None:
    await world.process().ready(ANN, EMAIL)
    assert world.directory.searches == 0
    lost = OPERATIONS.index("create_organization") + 1
    other = World()
    await register_and_be_killed(other, lost, "after")
    await other.process().ready(ANN, EMAIL)
    assert other.directory.searches == 1


@pytest.mark.parametrize("operation", STEP_OPERATIONS[1:])
@pytest.mark.parametrize("code", [ErrorCode.LETTA_UNAVAILABLE, ErrorCode.LITELLM_UNAVAILABLE])
async def test_an_outage_postpones_the_account_and_a_retry_after_it_completes_it(
    world: World, operation: str, code: ErrorCode
) -> None:
    world.fail(operation, unavailable(code))
    process = world.process()
    await process.ensure_account(ANN, EMAIL)
    with pytest.raises(PlatformError) as raised:
        await process.attempt(ANN)
    assert raised.value.code is ErrorCode.AGENT_UNAVAILABLE
    assert world.account().agent_status is AgentStatus.PROVISIONING
    assert "goes on by itself" in (world.account().status_reason or "")
    world.intercept()
    await process.attempt(ANN)
    world.assert_exactly_one_of_each()


async def test_while_litellm_is_unavailable_nothing_is_created_at_letta(world: World) -> None:
    world.fail("ensure_customer", unavailable(ErrorCode.LITELLM_UNAVAILABLE))
    process = world.process()
    await process.ensure_account(ANN, EMAIL)
    with pytest.raises(PlatformError):
        await process.attempt(ANN)
    assert world.directory.organizations == {}


async def test_a_refusal_fails_the_account_with_the_reason(world: World) -> None:
    refusal = PlatformError(ErrorCode.INTERNAL_ERROR, "The model gateway refused the key (HTTP 400).", retryable=False)
    world.fail("ensure_key", lambda: refusal)
    process = world.process()
    await process.ensure_account(ANN, EMAIL)
    with pytest.raises(PlatformError) as raised:
        await process.attempt(ANN)
    assert raised.value.message == (
        "Something went wrong while registering your model key. The model gateway refused the key (HTTP 400)."
    )
    assert world.account().agent_status is AgentStatus.FAILED
    assert world.account().status_reason == raised.value.message


async def test_an_unexpected_error_fails_the_account_without_its_details(world: World) -> None:
    world.fail("ensure_agent", lambda: RuntimeError("password=hunter2"))
    process = world.process()
    await process.ensure_account(ANN, EMAIL)
    with pytest.raises(PlatformError):
        await process.attempt(ANN)
    assert world.account().agent_status is AgentStatus.FAILED
    assert "hunter2" not in (world.account().status_reason or "")


async def test_a_failed_account_is_completed_once_the_cause_is_removed(world: World) -> None:
    world.fail("ensure_agent", lambda: RuntimeError("out of order"))
    process = world.process()
    await process.ensure_account(ANN, EMAIL)
    with pytest.raises(PlatformError):
        await process.attempt(ANN)
    world.intercept()
    await process.ready(ANN)
    world.assert_exactly_one_of_each()
    assert [event.status for event in world.events] == [
        AgentStatus.FAILED,
        AgentStatus.PROVISIONING,
        AgentStatus.ACTIVE,
    ]


async def test_a_database_outage_during_a_run_does_not_fail_the_account(world: World) -> None:
    records = 0

    async def before(operation: str) -> None:
        nonlocal records
        records += operation == "record"
        if records > 6:
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    process = world.process()
    await process.ensure_account(ANN, EMAIL)
    world.intercept(before)
    with pytest.raises(PlatformError):
        await process.attempt(ANN)
    world.intercept()
    await world.process().ready(ANN)
    world.assert_exactly_one_of_each()


async def test_another_configuration_is_applied_to_the_same_agent(world: World) -> None:
    before = await world.process().ready(ANN, EMAIL)
    world.template = OTHER_TEMPLATE
    after = await world.process().ready(ANN)
    assert after == before
    world.assert_exactly_one_of_each()


async def test_an_agent_stays_active_while_a_configuration_cannot_be_applied(world: World) -> None:
    await world.process().ready(ANN, EMAIL)
    world.template = OTHER_TEMPLATE
    world.fail("ensure_agent", unavailable(ErrorCode.LETTA_UNAVAILABLE))
    with pytest.raises(PlatformError):
        await world.process().attempt(ANN)
    assert world.account().agent_status is AgentStatus.ACTIVE


async def test_nothing_is_created_for_a_blocked_account(world: World) -> None:
    await world.store.ensure(ANN, EMAIL, None)
    world.set_account(agent_status=AgentStatus.BLOCKED)
    with pytest.raises(PlatformError) as raised:
        await world.process().ready(ANN)
    assert raised.value.code is ErrorCode.ACCOUNT_BLOCKED
    assert world.billing.customers == {}


async def test_an_account_blocked_during_a_run_does_not_become_active(world: World) -> None:
    async def before(operation: str) -> None:
        if operation == "ensure_agent":
            world.set_account(agent_status=AgentStatus.BLOCKED)

    world.intercept(before)
    with pytest.raises(PlatformError) as raised:
        await world.process().ready(ANN, EMAIL)
    assert raised.value.code is ErrorCode.ACCOUNT_BLOCKED
    assert world.account().agent_status is AgentStatus.BLOCKED


async def test_a_deleted_agent_is_replaced_by_a_thorough_run(world: World) -> None:
    process = world.process()
    first = await process.ready(ANN, EMAIL)
    world.delete_agent()
    second = await process.attempt(ANN, thorough=True)
    assert second.agent_id != first.agent_id
    assert await process.ready(ANN) == second
    world.assert_exactly_one_of_each(reason=AGENT_REPLACED)


async def test_a_rebuild_creates_everything_again_at_a_letta_that_lost_everything(world: World) -> None:
    process = world.process()
    await process.ready(ANN, EMAIL)
    world.empty_agent_service()
    await process.attempt(ANN, thorough=True, rebuild=True)
    world.assert_exactly_one_of_each(reason=AGENT_REPLACED)


async def test_an_unreadable_key_fails_the_account_and_is_replaced_by_a_thorough_run(world: World) -> None:
    await world.process().ready(ANN, EMAIL)
    old_key = world.billing.key_of(ANN)
    world.keys, world.template = KeyRing(SecretStr("another secret key, the old one was lost")), OTHER_TEMPLATE
    with pytest.raises(PlatformError):
        await world.process().attempt(ANN)
    assert world.account().agent_status is AgentStatus.FAILED
    assert world.billing.key_of(ANN) == old_key
    await world.process().attempt(ANN, thorough=True)
    world.assert_exactly_one_of_each()
    assert world.billing.key_of(ANN) != old_key


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, 40))
async def test_a_thorough_run_killed_at_any_point_is_continued_by_an_ordinary_one(
    world: World, nth: int, when: str
) -> None:
    await world.process().ready(ANN, EMAIL)
    world.empty_agent_service()
    world.keys = KeyRing(SecretStr("another secret key, the old one was lost"))
    world.kill(nth, when=when)
    process = world.process()
    try:
        await process.attempt(ANN, thorough=True, rebuild=True)
    except Killed:
        await process.aclose()
    world.intercept()
    begun = nth > 3 or (nth, when) == (3, "after")
    await world.process().attempt(ANN, thorough=not begun, rebuild=not begun)
    world.assert_exactly_one_of_each(reason=AGENT_REPLACED)


async def test_neither_keys_nor_addresses_appear_in_the_log(
    world: World, logged: list[MutableMapping[str, Any]]
) -> None:
    await world.process().ready(ANN, EMAIL)
    steps = [event for event in logged if event["event"] == "saga.step"]
    assert [event["step"] for event in steps] == [
        "key_value", "customer", "key", "organization", "member", "tools", "provider", "agent", "conversation",
        "activation",
    ]  # fmt: skip
    assert {(event["user_id"], event["outcome"]) for event in steps} == {(ANN, "done")}
    assert world.billing.key_of(ANN) not in str(logged)
    assert EMAIL not in str(logged)


async def test_two_users_get_keys_and_agents_of_their_own(world: World) -> None:
    process = world.process()
    ann, bob = await asyncio.gather(process.ready(ANN, EMAIL), process.ready(BOB, "bob@example.com"))
    assert {ann.member_id, ann.agent_id, ann.conversation_id}.isdisjoint(
        {bob.member_id, bob.agent_id, bob.conversation_id}
    )
    assert world.billing.key_of(ANN) != world.billing.key_of(BOB)
    world.assert_exactly_one_of_each(ANN)
    world.assert_exactly_one_of_each(BOB)
