"""An audit reports every difference between ledger and log, and none for calls that are not settled yet."""

from dataclasses import replace
from decimal import Decimal

from server.billing.audit import Audit, audit
from server.ports.schedule import CONFIRMED_WITHIN, UNMATCHED_AFTER
from tests.unit.billing.world import BillingWorld


async def audited(world: BillingWorld, user_id: str) -> Audit:
    today = world.now().date()
    return await audit(world.ledger, world.billing, user_id, today, today)


async def settled(*costs: str) -> tuple[BillingWorld, str]:
    world = BillingWorld()
    ann = world.user()
    for cost in costs:
        await world.turn(ann, world.call(ann, cost))
    await world.reconciler.round()
    return world, ann


async def test_an_audit_without_differences_has_the_exact_sums() -> None:
    world, ann = await settled("0.06437999999999999", "0.1")
    found = await audited(world, ann)
    assert found.agrees
    assert (found.calls, found.rows, found.logged, found.entered) == (2, 2, *[Decimal("0.16437999999999999")] * 2)


async def test_a_lost_row_is_missing() -> None:
    world, ann = await settled("0.1", "0.2")
    lost = world.billing.calls[0].request_id
    del world.database.ledger[lost]
    found = await audited(world, ann)
    assert (found.agrees, found.missing) == (False, [lost])


async def test_a_row_without_a_call_is_surplus() -> None:
    world, ann = await settled("0.1")
    invented = world.billing.calls.pop().request_id
    found = await audited(world, ann)
    assert (found.agrees, found.surplus) == (False, [invented])


async def test_another_cost_or_number_of_tokens_is_different() -> None:
    for change in ({"cost": Decimal("0.10000000000000001")}, {"completion_tokens": 6}, {"cached_tokens": 1}):
        world, ann = await settled("0.1")
        world.billing.calls = [replace(world.billing.calls[0], **change)]
        found = await audited(world, ann)
        assert (found.agrees, len(found.different)) == (False, 1), change


async def test_calls_that_are_not_settled_yet_are_waiting() -> None:
    world, ann = await settled("0.1")
    await world.turn(ann, world.call(ann, "0.2"))
    found = await audited(world, ann)
    assert found.agrees
    assert len(found.waiting) == 2  # the call in the log, the estimate in the ledger


async def test_other_users_calls_are_not_compared() -> None:
    world, ann = await settled("0.1")
    bob = world.user()
    await world.turn(bob, world.call(bob, "9"))
    assert (await audited(world, ann)).logged == Decimal("0.1")


async def test_a_call_that_the_gateway_did_not_log_is_reported_after_the_delay_of_logs() -> None:
    world, ann = await settled("0.1")
    first_day = world.now().date()
    await world.turn(ann, world.call(ann, "0.2"))
    lost = world.billing.calls.pop()
    assert (await audited(world, ann)).unlogged == []
    world.wait(UNMATCHED_AFTER.total_seconds() + 60)
    (named,) = (await audited(world, ann)).unlogged
    assert f"{lost.prompt_tokens} + {lost.completion_tokens} tokens, " in named
    assert named.endswith(", estimated")
    world.wait(CONFIRMED_WITHIN.total_seconds())
    await world.reconciler.round()
    found = await audit(world.ledger, world.billing, ann, first_day, world.now().date())
    (named,) = found.unlogged
    assert named.endswith(", written_off")
    assert found.agrees
