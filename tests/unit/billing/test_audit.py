"""An audit sees what differs, and says nothing where all is well or still on its way."""

from dataclasses import replace
from decimal import Decimal

from server.billing.audit import Audit, audit
from server.ports.schedule import CONFIRMED_WITHIN, QUIET
from tests.unit.billing.world import Office


async def audited(office: Office, user_id: str) -> Audit:
    today = office.now().date()
    return await audit(office.ledger, office.billing, user_id, today, today)


async def settled(*costs: str) -> tuple[Office, str]:
    office = Office()
    ann = office.user()
    for cost in costs:
        await office.turn(ann, office.call(ann, cost))
    await office.reconciler.round()
    return office, ann


async def test_books_that_agree_are_told_with_every_digit() -> None:
    office, ann = await settled("0.06437999999999999", "0.1")
    found = await audited(office, ann)
    assert found.agrees
    assert (found.calls, found.rows, found.logged, found.entered) == (2, 2, *[Decimal("0.16437999999999999")] * 2)


async def test_a_lost_row_is_missing() -> None:
    office, ann = await settled("0.1", "0.2")
    lost = office.billing.calls[0].request_id
    del office.database.ledger[lost]
    found = await audited(office, ann)
    assert (found.agrees, found.missing) == (False, [lost])


async def test_a_row_of_no_call_is_a_surplus() -> None:
    office, ann = await settled("0.1")
    invented = office.billing.calls.pop().request_id
    found = await audited(office, ann)
    assert (found.agrees, found.surplus) == (False, [invented])


async def test_another_cost_or_another_count_is_different() -> None:
    for change in ({"cost": Decimal("0.10000000000000001")}, {"completion_tokens": 6}, {"cached_tokens": 1}):
        office, ann = await settled("0.1")
        office.billing.calls = [replace(office.billing.calls[0], **change)]
        found = await audited(office, ann)
        assert (found.agrees, len(found.different)) == (False, 1), change


async def test_what_is_not_settled_yet_is_waiting_and_not_wrong() -> None:
    office, ann = await settled("0.1")
    await office.turn(ann, office.call(ann, "0.2"))
    found = await audited(office, ann)
    assert found.agrees
    assert len(found.waiting) == 2  # the call in the log, the estimate in the ledger


async def test_another_users_calls_are_none_of_it() -> None:
    office, ann = await settled("0.1")
    bob = office.user()
    await office.turn(bob, office.call(bob, "9"))
    assert (await audited(office, ann)).logged == Decimal("0.1")


async def test_what_the_gateway_did_not_log_is_named_once_it_should_be_there() -> None:
    office, ann = await settled("0.1")
    first_day = office.now().date()
    await office.turn(ann, office.call(ann, "0.2"))
    lost = office.billing.calls.pop()
    assert (await audited(office, ann)).unlogged == []
    office.wait(QUIET.total_seconds() + 60)
    (named,) = (await audited(office, ann)).unlogged
    assert f"{lost.prompt_tokens} + {lost.completion_tokens} tokens, " in named
    assert named.endswith(", estimated")
    office.wait(CONFIRMED_WITHIN.total_seconds())
    await office.reconciler.round()
    found = await audit(office.ledger, office.billing, ann, first_day, office.now().date())
    (named,) = found.unlogged
    assert named.endswith(", written_off")
    assert found.agrees
