"""Settling: found as soon as it is logged, told to whom it concerns, and never lost to an outage."""

import asyncio
from decimal import Decimal
from itertools import pairwise

from server.ports import Plan
from server.ports.schedule import LONGEST_POLL
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnStatus
from tests.fakes.billing import Customer
from tests.unit.billing.world import Office
from tests.virtual_time import virtual_time


async def test_a_turn_is_settled_once_its_calls_are_logged_and_the_user_is_told() -> None:
    office = Office()
    ann = office.user()
    turn = await office.turn(ann, office.call(ann, "0.06411"))
    assert (turn.cost, turn.cost_status) == (Decimal(1), "estimated")

    assert await office.reconciler.round()

    assert ((await office.stored(turn)).cost, (await office.stored(turn)).cost_status) == (
        Decimal("0.06411"),
        "settled",
    )
    [(user_id, news)] = office.told
    assert (user_id, news.type, news.turn_id, news.attempt) == (ann, "usage.settled", turn.id, 1)
    assert (news.fields["cost"], news.fields["cost_status"]) == ("0.06411", "settled")


async def test_nobody_is_looked_for_who_used_nothing() -> None:
    office = Office()
    office.user()
    assert await office.reconciler.round()
    assert office.told == []


async def test_a_late_log_is_looked_at_again_and_nothing_is_told_before() -> None:
    office = Office()
    ann = office.user()
    call = office.call(ann)
    office.billing.late.add(call.request_id)
    turn = await office.turn(ann, call)
    for _ in range(5):
        await office.reconciler.round()
        office.wait(5)
    assert (office.told, (await office.stored(turn)).cost) == ([], Decimal(1))

    office.billing.late.clear()
    await office.reconciler.round()
    assert (await office.stored(turn)).cost == Decimal("0.5")


async def test_a_call_that_outlives_its_cancelled_turn_is_charged_to_it_when_it_is_logged() -> None:
    office = Office()
    ann = office.user()
    stopped = office.call(ann, "0.07")
    office.billing.late.add(stopped.request_id)
    turn = await office.turn(ann, stopped, status=TurnStatus.CANCELLED)
    following = await office.turn(ann, office.call(ann, "0.02"))
    for _ in range(4):
        await office.reconciler.round()
        office.wait(60)
    assert (await office.stored(turn)).cost is None
    assert (await office.stored(following)).cost == Decimal("0.02")

    office.billing.late.clear()
    office.wait(120)
    await office.reconciler.round()
    assert (await office.stored(turn)).cost == Decimal("0.07")
    assert [news.turn_id for _, news in office.told] == [following.id, turn.id]


async def test_while_litellm_is_away_estimates_stand_and_are_settled_when_it_is_back() -> None:
    office = Office()
    ann = office.user()
    turn = await office.turn(ann, office.call(ann))

    async def away(operation: str) -> None:
        raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)

    office.billing.before = away
    assert not await office.reconciler.round()
    assert (await office.stored(turn)).cost_status == "estimated"

    office.billing.before = None
    office.wait(3600)
    assert await office.reconciler.round()
    assert (await office.stored(turn)).cost_status == "settled"


async def test_the_database_going_away_in_the_middle_loses_and_doubles_nothing() -> None:
    office = Office()
    ann = office.user()
    turn = await office.turn(ann, office.call(ann, "0.06"), office.call(ann, "0.03"))

    async def lose_the_answer(operation: str) -> None:
        if operation == "settle":
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    office.database.after = lose_the_answer
    assert not await office.reconciler.round()
    office.database.after = None
    office.wait(3700)
    await office.reconciler.round()
    assert (await office.stored(turn)).cost == Decimal("0.09")


async def test_one_user_that_cannot_be_settled_does_not_hold_up_the_others() -> None:
    office = Office()
    ann, bob = office.user(), office.user()
    first, second = await office.turn(ann, office.call(ann)), await office.turn(bob, office.call(bob))
    office.database.profiles.pop(ann)  # the account was deleted this very moment

    assert not await office.reconciler.round()

    assert (await office.stored(first)).cost_status == "estimated"
    assert (await office.stored(second)).cost_status == "settled"


async def test_calls_of_other_users_are_never_charged() -> None:
    office = Office()
    ann, bob = office.user(), office.user()
    theirs = office.call(bob, "9")
    turn = await office.turn(ann, office.call(ann, "0.5"))
    office.billing.calls.append(theirs)
    await office.reconciler.round()
    assert (await office.stored(turn)).cost == Decimal("0.5")


async def test_a_gateway_whose_clock_is_an_hour_wrong_is_understood() -> None:
    for ahead in (-3600.0, 3600.0):
        office = Office()
        office.billing.clock_ahead, office.billing.clock_error = ahead, 0.5
        ann = office.user()
        turns = [await office.turn(ann, office.call(ann, cost)) for cost in ("0.1", "0.2", "0.3")]
        for _ in range(2):  # the first look tells how wrong it is
            await office.reconciler.round()
            office.wait(30)
        assert [(await office.stored(turn)).cost for turn in turns] == [Decimal("0.1"), Decimal("0.2"), Decimal("0.3")]


async def test_a_database_that_answers_slowly_is_not_taken_for_one_with_another_clock() -> None:
    office = Office()
    ann = office.user()
    turns = [
        await office.turn(ann, office.call(ann, cost, outcome="failure"), status=TurnStatus.FAILED)
        for cost in ("0.1", "0.2")
    ]

    async def answer_slowly(operation: str) -> None:
        if operation == "due":
            office.wait(4)

    office.database.after = answer_slowly
    await office.reconciler.round()
    assert [(await office.stored(turn)).cost for turn in turns] == [Decimal("0.1"), Decimal("0.2")]


async def test_steps_of_the_budget_are_told_once() -> None:
    office = Office()
    ann = office.user()
    office.billing.customers[ann] = Customer("ann@example.com", Plan(Decimal(1), "30d"))
    await office.budgets.refresh_if_old(ann)
    for cost in ("0.85", "0.1", "0.1"):
        await office.turn(ann, office.call(ann, cost))
        await office.reconciler.round()
    warnings = [news.fields for _, news in office.told if news.type == "budget.warning"]
    assert warnings == [
        {"spent": "0.85", "limit": "1", "level": 80},
        {"spent": "1.05", "limit": "1", "level": 100},
    ]


@virtual_time
async def test_a_service_that_stays_away_is_asked_ever_more_seldom() -> None:
    office = Office()
    asked: list[float] = []

    async def away(operation: str) -> None:
        asked.append(asyncio.get_running_loop().time())
        raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    office.database.before = away
    running = asyncio.create_task(office.reconciler.run())
    await asyncio.sleep(300)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses[:5] == [2, 4, 8, 16, LONGEST_POLL.total_seconds()]
    assert set(pauses[5:]) == {LONGEST_POLL.total_seconds()}
