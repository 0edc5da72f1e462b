"""Budgets: LiteLLM's word is taken over now and then, and once more before a refusal stands."""

import asyncio
from decimal import Decimal

from server.billing.budgets import Budgets
from server.ports import Plan
from server.ports.schedule import BUDGET_FRESH, BUDGET_REFUSED, BUDGET_TIMEOUT
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.billing import Customer
from tests.unit.billing.world import Office
from tests.virtual_time import virtual_time


def office_with(budget: str) -> tuple[Office, str, list[str]]:
    office, asked = Office(), list[str]()
    ann = office.user()
    office.billing.customers[ann] = Customer(
        "ann@example.com", Plan(None if budget is None else Decimal(budget), "30d")
    )

    async def note(operation: str) -> None:
        asked.append(operation)

    office.billing.before = note
    return office, ann, asked


async def test_litellm_is_asked_once_a_minute_for_a_user() -> None:
    office, ann, asked = office_with("5")
    for _ in range(3):
        await office.budgets.refresh_if_old(ann)
        office.wait(BUDGET_FRESH.total_seconds() / 3)
    assert asked == ["budget"]
    await office.budgets.refresh_if_old(ann)
    assert asked == ["budget", "budget"]
    assert office.database.billing[ann].limit == Decimal(5)


async def test_a_refusal_stands_unless_litellm_knows_of_more_room() -> None:
    office, ann, asked = office_with("1")
    await office.turn(ann)  # estimated at a dollar
    assert not await office.budgets.may_send_after_all(ann)
    office.billing.customers[ann].plan = Plan(Decimal(2), "30d")
    assert not await office.budgets.may_send_after_all(ann)  # asked only just now
    office.wait(BUDGET_REFUSED.total_seconds())
    assert await office.budgets.may_send_after_all(ann)
    assert asked == ["budget", "budget"]


async def test_while_litellm_is_away_what_was_last_heard_stands() -> None:
    office, ann, _ = office_with("1")
    await office.budgets.refresh_if_old(ann)

    async def away(operation: str) -> None:
        raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)

    office.billing.before = away
    office.wait(BUDGET_FRESH.total_seconds())
    assert not await office.budgets.refresh_if_old(ann)
    assert office.database.billing[ann].limit == Decimal(1)


async def test_a_user_litellm_does_not_know_has_no_budget() -> None:
    office, ann, _ = office_with("1")
    office.billing.customers.clear()
    assert not await office.budgets.refresh_if_old(ann)
    assert ann not in office.database.billing


@virtual_time
async def test_an_answer_that_does_not_come_holds_nobody_up() -> None:
    office, ann, _ = office_with("1")

    async def never(operation: str) -> None:
        await asyncio.Event().wait()

    office.billing.before = never
    clock = asyncio.get_running_loop().time
    began = clock()
    assert not await Budgets(office.ledger, office.billing, clock).refresh_if_old(ann)
    assert clock() - began == BUDGET_TIMEOUT.total_seconds()
