"""Budgets: refreshed from LiteLLM once a minute, and again before a message is refused."""

import asyncio
from decimal import Decimal

from server.billing.budgets import Budgets
from server.ports import Plan
from server.ports.schedule import BUDGET_FRESH, BUDGET_REFUSED, BUDGET_TIMEOUT
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.billing import Customer
from tests.unit.billing.world import BillingWorld
from tests.virtual_time import virtual_time


def world_with(budget: str) -> tuple[BillingWorld, str, list[str]]:
    world, asked = BillingWorld(), list[str]()
    ann = world.user()
    world.billing.customers[ann] = Customer("ann@example.com", Plan(None if budget is None else Decimal(budget), "30d"))

    async def note(operation: str) -> None:
        asked.append(operation)

    world.billing.before = note
    return world, ann, asked


async def test_a_users_budget_is_refreshed_once_a_minute() -> None:
    world, ann, asked = world_with("5")
    for _ in range(3):
        await world.budgets.refresh_if_old(ann)
        world.wait(BUDGET_FRESH.total_seconds() / 3)
    assert asked == ["budget"]
    await world.budgets.refresh_if_old(ann)
    assert asked == ["budget", "budget"]
    assert world.database.billing[ann].limit == Decimal(5)


async def test_a_refused_message_may_be_sent_after_the_budget_was_raised_at_litellm() -> None:
    world, ann, asked = world_with("1")
    await world.turn(ann)  # estimated at a dollar
    assert not await world.budgets.may_send_after_refresh(ann)
    world.billing.customers[ann].plan = Plan(Decimal(2), "30d")
    assert not await world.budgets.may_send_after_refresh(ann)  # refreshed less than BUDGET_REFUSED ago
    world.wait(BUDGET_REFUSED.total_seconds())
    assert await world.budgets.may_send_after_refresh(ann)
    assert asked == ["budget", "budget"]


async def test_the_stored_budget_stays_in_force_while_litellm_is_unavailable() -> None:
    world, ann, _ = world_with("1")
    await world.budgets.refresh_if_old(ann)

    async def unavailable(operation: str) -> None:
        raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)

    world.billing.before = unavailable
    world.wait(BUDGET_FRESH.total_seconds())
    assert not await world.budgets.refresh_if_old(ann)
    assert world.database.billing[ann].limit == Decimal(1)


async def test_a_user_unknown_to_litellm_has_no_budget() -> None:
    world, ann, _ = world_with("1")
    world.billing.customers.clear()
    assert not await world.budgets.refresh_if_old(ann)
    assert ann not in world.database.billing


@virtual_time
async def test_a_refresh_without_an_answer_times_out() -> None:
    world, ann, _ = world_with("1")

    async def never(operation: str) -> None:
        await asyncio.Event().wait()

    world.billing.before = never
    clock = asyncio.get_running_loop().time
    began = clock()
    assert not await Budgets(world.ledger, world.billing, clock).refresh_if_old(ann)
    assert clock() - began == BUDGET_TIMEOUT.total_seconds()
