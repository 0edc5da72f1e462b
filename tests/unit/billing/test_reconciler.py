"""Reconciling: calls are entered once they are logged, changed charges are announced, and no outage loses a call."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

from server.ports import Plan
from server.ports.schedule import CLOCK_DOUBT, LONGEST_POLL, READ_MARGIN
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnStatus
from tests.fakes.billing import Customer
from tests.unit.billing.world import BillingWorld
from tests.virtual_time import virtual_time


async def test_a_turn_is_settled_and_announced_once_its_calls_are_logged() -> None:
    world = BillingWorld()
    ann = world.user()
    turn = await world.turn(ann, world.call(ann, "0.06411"))
    assert (turn.cost, turn.cost_status) == (Decimal(1), "estimated")

    assert await world.reconciler.round()

    assert ((await world.stored(turn)).cost, (await world.stored(turn)).cost_status) == (
        Decimal("0.06411"),
        "settled",
    )
    [(user_id, announcement)] = world.announced
    assert (user_id, announcement.type, announcement.turn_id, announcement.attempt) == (
        ann,
        "usage.settled",
        turn.id,
        1,
    )
    assert (announcement.fields["cost"], announcement.fields["cost_status"]) == ("0.06411", "settled")


async def test_users_without_turns_are_not_searched_for() -> None:
    world = BillingWorld()
    world.user()
    assert await world.reconciler.round()
    assert world.announced == []


async def test_a_call_that_is_logged_late_is_found_by_a_later_search() -> None:
    world = BillingWorld()
    ann = world.user()
    call = world.call(ann)
    world.billing.late.add(call.request_id)
    turn = await world.turn(ann, call)
    for _ in range(5):
        await world.reconciler.round()
        world.wait(5)
    assert (world.announced, (await world.stored(turn)).cost) == ([], Decimal(1))

    world.billing.late.clear()
    await world.reconciler.round()
    assert (await world.stored(turn)).cost == Decimal("0.5")


async def test_a_search_that_finds_nothing_calls_the_database_only_for_a_turn_that_is_new_to_it() -> None:
    world = BillingWorld()
    ann = world.user()
    entered: list[str] = []

    async def count(operation: str) -> None:
        entered.extend([operation] if operation == "enter" else [])

    world.database.before = count
    for number in (1, 2):
        call = world.call(ann)
        world.billing.late.add(call.request_id)
        await world.turn(ann, call)
        for _ in range(3):
            await world.reconciler.round()
            world.wait(10)
        assert len(entered) == number
    world.billing.late.clear()
    await world.reconciler.round()
    assert len(entered) == 3


async def test_a_call_that_outlives_its_cancelled_turn_is_charged_to_it_when_it_is_logged() -> None:
    world = BillingWorld()
    ann = world.user()
    stopped = world.call(ann, "0.07")
    world.billing.late.add(stopped.request_id)
    turn = await world.turn(ann, stopped, status=TurnStatus.CANCELLED)
    following = await world.turn(ann, world.call(ann, "0.02"))
    for _ in range(4):
        await world.reconciler.round()
        world.wait(60)
    assert (await world.stored(turn)).cost is None
    assert (await world.stored(following)).cost == Decimal("0.02")

    world.billing.late.clear()
    world.wait(120)
    await world.reconciler.round()
    assert (await world.stored(turn)).cost == Decimal("0.07")
    assert [announcement.turn_id for _, announcement in world.announced] == [following.id, turn.id]


async def test_estimates_stay_while_litellm_is_unavailable_and_are_settled_after_it() -> None:
    world = BillingWorld()
    ann = world.user()
    turn = await world.turn(ann, world.call(ann))

    async def unavailable(operation: str) -> None:
        raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)

    world.billing.before = unavailable
    assert not await world.reconciler.round()
    assert (await world.stored(turn)).cost_status == "estimated"

    world.billing.before = None
    world.wait(3600)
    assert await world.reconciler.round()
    assert (await world.stored(turn)).cost_status == "settled"


async def test_a_lost_answer_of_the_database_neither_loses_nor_repeats_a_call() -> None:
    world = BillingWorld()
    ann = world.user()
    turn = await world.turn(ann, world.call(ann, "0.06"), world.call(ann, "0.03"))

    async def lose_the_answer(operation: str) -> None:
        if operation == "enter":
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    world.database.after = lose_the_answer
    assert not await world.reconciler.round()
    world.database.after = None
    world.wait(3700)
    await world.reconciler.round()
    assert (await world.stored(turn)).cost == Decimal("0.09")


async def test_a_user_who_cannot_be_settled_does_not_delay_others() -> None:
    world = BillingWorld()
    ann, bob = world.user(), world.user()
    first, second = await world.turn(ann, world.call(ann)), await world.turn(bob, world.call(bob))
    world.database.profiles.pop(ann)  # the account was deleted since the search was claimed

    assert not await world.reconciler.round()

    assert (await world.stored(first)).cost_status == "estimated"
    assert (await world.stored(second)).cost_status == "settled"


async def test_calls_of_other_users_are_never_charged() -> None:
    world = BillingWorld()
    ann, bob = world.user(), world.user()
    theirs = world.call(bob, "9")
    turn = await world.turn(ann, world.call(ann, "0.5"))
    world.billing.calls.append(theirs)
    await world.reconciler.round()
    assert (await world.stored(turn)).cost == Decimal("0.5")


async def test_calls_are_attributed_although_the_gateways_clock_is_an_hour_wrong() -> None:
    for ahead in (-3600.0, 3600.0):
        world = BillingWorld()
        world.billing.clock_ahead, world.billing.clock_error = ahead, 0.5
        ann = world.user()
        turns = [await world.turn(ann, world.call(ann, cost)) for cost in ("0.1", "0.2", "0.3")]
        for _ in range(2):  # the first search measures the offset
            await world.reconciler.round()
            world.wait(30)
        assert [(await world.stored(turn)).cost for turn in turns] == [Decimal("0.1"), Decimal("0.2"), Decimal("0.3")]


async def test_the_log_before_a_turn_is_read_only_as_far_as_the_clocks_may_be_wrong() -> None:
    world = BillingWorld()
    world.billing.clock_ahead, world.billing.clock_error = 100.0, 1.0
    ann = world.user()
    for expected in (READ_MARGIN, timedelta(seconds=1) + CLOCK_DOUBT):
        began, known = world.time, timedelta(seconds=100 if world.billing.read_since else 0)
        await world.turn(ann, world.call(ann))
        await world.reconciler.round()
        assert world.billing.read_since[-1] == began + known - expected
        world.wait(3700)
        await world.reconciler.round()  # the first turn is settled


async def test_a_slow_answer_of_the_database_is_not_mistaken_for_a_clock_offset() -> None:
    world = BillingWorld()
    ann = world.user()
    turns = [
        await world.turn(ann, world.call(ann, cost, outcome="failure"), status=TurnStatus.FAILED)
        for cost in ("0.1", "0.2")
    ]

    async def answer_slowly(operation: str) -> None:
        if operation == "due":
            world.wait(4)

    world.database.after = answer_slowly
    await world.reconciler.round()
    assert [(await world.stored(turn)).cost for turn in turns] == [Decimal("0.1"), Decimal("0.2")]


async def test_each_budget_warning_is_announced_once() -> None:
    world = BillingWorld()
    ann = world.user()
    world.billing.customers[ann] = Customer("ann@example.com", Plan(Decimal(1), "30d"))
    await world.budgets.refresh_if_old(ann)
    for cost in ("0.85", "0.1", "0.1"):
        await world.turn(ann, world.call(ann, cost))
        await world.reconciler.round()
    warnings = [announcement.fields for _, announcement in world.announced if announcement.type == "budget.warning"]
    assert warnings == [
        {"spent": "0.85", "limit": "1", "level": 80},
        {"spent": "1.05", "limit": "1", "level": 100},
    ]


@virtual_time
async def test_the_polling_interval_grows_while_a_service_is_unavailable() -> None:
    world = BillingWorld()
    asked: list[float] = []

    async def unavailable(operation: str) -> None:
        asked.append(asyncio.get_running_loop().time())
        raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    world.database.before = unavailable
    running = asyncio.create_task(world.reconciler.run())
    await asyncio.sleep(300)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses[:5] == [2, 4, 8, 16, LONGEST_POLL.total_seconds()]
    assert set(pauses[5:]) == {LONGEST_POLL.total_seconds()}
