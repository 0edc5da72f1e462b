"""The ledger: estimates are replaced by exact rows, and derived figures follow the rows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from server.ports import (
    AccountChange,
    Estimate,
    Findings,
    KnownCall,
    LedgerChanges,
    LedgerEntry,
    LedgerRow,
    SettledAttempt,
    TurnCharge,
)
from server.protocol.codes import ErrorCode
from server.protocol.shapes import Turn, TurnStatus, Usage
from tests.contract.stores.calls import call, charged
from tests.contract.stores.chat import CANCELLED, COMPLETED, FAILED, Chat, refused
from tests.contract.stores.worlds import Day

ESTIMATE = {"usage": Usage(20, 10, 30, model_calls=2), "cost": Decimal("0.1")}


async def completed(chat: Chat, text: str = "hello") -> Turn:
    """A completed turn of two calls that is estimated to have cost ten cents."""
    turn, lease = await chat.running(text)
    return await chat.end(lease, turn, COMPLETED, "ok", **ESTIMATE)


async def stored(chat: Chat, turn: Turn) -> Turn:
    found = await chat.store.turn(chat.user_id, turn.id)
    assert found is not None
    return found


async def test_an_estimate_counts_until_exact_rows_replace_it(chat: Chat) -> None:
    turn = await completed(chat)
    assert (turn.cost, turn.cost_status) == (Decimal("0.1"), "estimated")
    calls = call("0.06437999999999999", 12, 6), call("0.03", 8, 4)

    settlement = await chat.world.ledger.enter(chat.user_id, charged(turn, *calls))

    after = await stored(chat, turn)
    exact = Decimal("0.09437999999999999")
    assert (after.cost, after.cost_status, after.usage) == (exact, "settled", Usage(20, 10, 30, model_calls=2))
    assert after.message
    assert (after.message.cost, after.message.tokens_used) == (Decimal("0.094380"), 30)
    assert await chat.world.today(chat.user_id) == Day(2, 30, exact)
    assert settlement == LedgerChanges((TurnCharge(turn.id, 1, after.usage, exact, "settled"),))
    assert await chat.world.ledger.deviations(chat.user_id) == []


async def test_a_turn_of_no_known_price_has_no_cost(chat: Chat) -> None:
    turn, lease = await chat.running("hello")
    ended = await chat.end(lease, turn, COMPLETED, "ok", usage=Usage(20, 10, 30, model_calls=2))
    assert ended.message
    assert (ended.cost, ended.message.cost, ended.message.tokens_used) == (None, None, 30)
    assert await chat.world.today(chat.user_id) == Day(2, 30, Decimal(0))


@pytest.mark.parametrize("cost", ["9999.9999995", "10000", "123456789.123456789"])
async def test_an_amount_beyond_the_specified_columns_saturates_them_and_stops_nothing(chat: Chat, cost: str) -> None:
    first, second = await completed(chat, "one"), await completed(chat, "two")
    half = 2**30
    calls = call(cost, half, half - 1), call("0.5", half, half - 1)
    await chat.world.ledger.enter(chat.user_id, charged(first, *calls))
    await chat.world.ledger.enter(chat.user_id, charged(second, call("0.25")))

    turn, exact = await stored(chat, first), Decimal(cost) + Decimal("0.5")
    assert turn.message
    assert turn.usage
    assert (turn.cost, turn.usage.total_tokens) == (exact, 4 * half - 2)
    assert (turn.message.cost, turn.message.tokens_used) == (Decimal("9999.999999"), 2**31 - 1)
    assert (await stored(chat, second)).cost == Decimal("0.25")
    assert await chat.world.today(chat.user_id) == Day(4, 2**31 - 1, exact + Decimal("0.25"))
    assert await chat.world.ledger.deviations(chat.user_id) == []
    third = await completed(chat, "three")  # and messages are accepted
    assert third.cost == Decimal("0.1")


async def test_entering_the_same_findings_again_changes_nothing(chat: Chat) -> None:
    turn = await completed(chat)
    findings = charged(turn, call(), call())
    await chat.world.ledger.enter(chat.user_id, findings)
    before = await stored(chat, turn), await chat.world.today(chat.user_id)

    assert await chat.world.ledger.enter(chat.user_id, findings) == LedgerChanges()
    assert (await stored(chat, turn), await chat.world.today(chat.user_id)) == before


async def test_a_corrected_row_updates_derived_figures_and_keeps_its_turn(chat: Chat) -> None:
    turn, other = await completed(chat, "one"), await completed(chat, "two")
    made = call("0.5")
    await chat.world.ledger.enter(chat.user_id, charged(turn, made))
    corrected = replace(made, cost=Decimal("0.25"), prompt_tokens=100)

    await chat.world.ledger.enter(chat.user_id, Findings((LedgerEntry(corrected, other.id, 1),)))

    after, untouched = await stored(chat, turn), await stored(chat, other)
    assert (after.cost, untouched.cost) == (Decimal("0.25"), Decimal("0.1"))
    assert after.message
    assert (after.message.cost, after.message.tokens_used) == (Decimal("0.250000"), 105)
    assert await chat.world.today(chat.user_id) == Day(4, 105 + 30, Decimal("0.35"))
    assert await chat.world.ledger.deviations(chat.user_id) == []


async def test_a_call_of_another_user_is_not_changed(chat: Chat) -> None:
    turn = await completed(chat)
    made = call("0.5")
    await chat.world.ledger.enter(chat.user_id, charged(turn, made))
    thief = Chat(chat.world, await chat.world.sign_up())
    theirs = await completed(thief)

    claim = Findings(
        (LedgerEntry(replace(made, cost=Decimal(0)), theirs.id, 1),), (SettledAttempt(turn.id, 1, "gone"),)
    )
    await chat.world.ledger.enter(thief.user_id, claim)

    assert (await stored(chat, turn)).cost == Decimal("0.5")
    assert (await stored(thief, theirs)).cost == Decimal("0.1")
    assert [row.request_id for row in await rows(chat)] == [made.request_id]


@pytest.mark.parametrize("status", [CANCELLED, FAILED])
async def test_a_failed_or_cancelled_turn_is_charged_its_logged_calls(chat: Chat, status: TurnStatus) -> None:
    turn, lease = await chat.running()
    ended = await chat.end(lease, turn, status, "so f", usage=Usage(20, 10, 30, model_calls=2))
    assert (ended.usage, ended.cost, ended.cost_status) == (None, None, "estimated")

    first = Findings((LedgerEntry(call("0.02"), turn.id, 1),))
    await chat.world.ledger.enter(chat.user_id, first)
    meanwhile = await stored(chat, turn)
    await chat.world.ledger.enter(chat.user_id, charged(turn, call("0.01")))
    after = await stored(chat, turn)

    assert (meanwhile.cost, meanwhile.cost_status) == (Decimal("0.02"), "estimated")
    assert (after.cost, after.cost_status, after.usage) == (
        Decimal("0.03"),
        "settled",
        Usage(20, 10, 30, model_calls=2),
    )
    assert after.message
    assert after.message.cost == Decimal("0.030000")


async def test_a_turn_without_a_call_cost_nothing(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.end(lease, turn, FAILED)
    await chat.world.ledger.enter(chat.user_id, charged(turn))
    after = await stored(chat, turn)
    assert (after.usage, after.cost, after.cost_status) == (None, Decimal(0), "settled")


async def test_an_attempt_that_was_not_sent_is_settled_at_once_and_not_searched_for(chat: Chat) -> None:
    turn, lease = await chat.running()
    ended = await chat.end(lease, turn, FAILED, sent_after=None)
    assert (ended.cost, ended.cost_status) == (Decimal(0), "settled")
    assert (await chat.world.ledger.search(chat.user_id, turn.created_at - timedelta(hours=1))).attempts == ()


async def test_housekeeping_counts_for_the_user_and_for_no_turn(chat: Chat) -> None:
    turn = await completed(chat)
    background = LedgerEntry(call("0.7", 70, 7), None, None)
    own = charged(turn, call("0.06", 20, 10))

    await chat.world.ledger.enter(chat.user_id, Findings((*own.entries, background), own.settled))

    assert (await stored(chat, turn)).cost == Decimal("0.06")
    assert await chat.world.today(chat.user_id) == Day(2, 107, Decimal("0.76"))


async def test_a_call_entered_as_housekeeping_can_be_moved_to_its_turn(chat: Chat) -> None:
    turn, made = await completed(chat), call("0.06", 20, 10)
    await chat.world.ledger.enter(chat.user_id, Findings((LedgerEntry(made, None, None),)))
    await chat.world.ledger.enter(chat.user_id, charged(turn, made))
    after = await stored(chat, turn)
    assert (after.cost, after.cost_status, after.usage) == (
        Decimal("0.06"),
        "settled",
        Usage(20, 10, 30, model_calls=1),
    )
    assert await chat.world.today(chat.user_id) == Day(2, 30, Decimal("0.06"))


async def test_an_estimate_that_is_never_confirmed_is_written_off(chat: Chat) -> None:
    turn = await completed(chat)
    await chat.world.ledger.enter(
        chat.user_id, Findings((), (SettledAttempt(turn.id, 1, "missing", written_off=True),))
    )
    after = await stored(chat, turn)
    assert (after.usage, after.cost, after.cost_status) == (None, Decimal(0), "written_off")
    assert await chat.world.today(chat.user_id) == Day(2, 0, Decimal(0))
    [row] = await rows(chat)
    assert (row.status, row.cost, row.flag) == ("written_off", Decimal("0.1"), "missing")


async def test_a_refused_call_counts_nothing_and_a_failed_one_its_cost(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.end(lease, turn, FAILED)
    refused = call("0", 633, 0, outcome="failure")
    broken = call("0.01917", 627, 6, outcome="failure")
    await chat.world.ledger.enter(chat.user_id, charged(turn, refused, broken))
    after = await stored(chat, turn)
    assert (after.cost, after.usage) == (Decimal("0.01917"), Usage(627, 6, 633, model_calls=1))
    assert len(await rows(chat)) == 2


async def test_a_row_counts_on_the_utc_day_on_which_its_call_began(chat: Chat) -> None:
    turn = await completed(chat)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    made = call("0.5", started_at=yesterday, ended_at=datetime.now(UTC))
    await chat.world.ledger.enter(chat.user_id, charged(turn, made))
    assert await chat.world.day(chat.user_id, 1) == Day(0, 15, Decimal("0.5"))
    assert await chat.world.today(chat.user_id) == Day(2, 0, Decimal(0))


async def test_charges_of_all_attempts_at_a_turn_add_up(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.end(lease, turn, FAILED, "half")
    await chat.world.ledger.enter(chat.user_id, charged(turn, call("0.1", 2, 1)))
    second = (await chat.again(turn)).turn
    done = await chat.end(
        lease, second, COMPLETED, "whole", usage=Usage(20, 10, 30, model_calls=1), cost=Decimal("0.01")
    )
    assert (done.usage, done.cost) == (Usage(22, 11, 33, model_calls=2), Decimal("0.11"))
    assert done.message
    assert (done.message.tokens_used, done.message.cost) == (33, Decimal("0.110000"))
    assert await chat.world.today(chat.user_id) == Day(2, 33, Decimal("0.11"))


async def test_a_search_is_due_after_an_attempt_and_then_after_a_pause(chat: Chat) -> None:
    turn = await completed(chat)
    await chat.world.make_due(chat.user_id)
    [search] = await chat.world.ledger.due(10)
    again = await chat.world.ledger.due(10)

    assert again == []
    assert search.user_id == chat.user_id
    [attempt] = search.attempts
    assert (attempt.key, attempt.outcome, attempt.usage) == ((turn.id, 1), COMPLETED, ESTIMATE["usage"])
    assert (attempt.is_settled, search.known) == (False, {})
    assert search.since <= attempt.sent_at


async def test_a_failed_turn_with_a_completed_run_is_charged_like_a_completed_one(
    chat: Chat,
) -> None:
    turn, lease = await chat.running()
    cost = Decimal("0.1")
    told = await chat.end(
        lease, turn, FAILED, usage=ESTIMATE["usage"], estimate=Estimate("gpt-4", cost), run_completed=True
    )
    assert (told.cost, told.cost_status) == (cost, "estimated")
    await chat.world.make_due(chat.user_id)
    [search] = await chat.world.ledger.due(10)
    assert [(one.outcome, one.usage) for one in search.attempts] == [(COMPLETED, ESTIMATE["usage"])]


async def test_a_settled_turn_is_searched_once_more_for_housekeeping(chat: Chat) -> None:
    turn = await completed(chat)
    await chat.world.make_due(chat.user_id)
    [search] = await chat.world.ledger.due(10)
    await chat.world.ledger.enter(chat.user_id, charged(turn, call(), call()))
    looks = []
    for seconds in (2, 19, 30):
        await chat.world.let_pass(chat.user_id, seconds)
        looks.append(await chat.world.ledger.due(10))

    assert [len(found) for found in looks] == [0, 1, 0]
    assert [(one.turn_id, one.is_settled) for one in looks[1][0].attempts] == [(turn.id, True)]
    assert looks[1][0].since <= looks[1][0].attempts[0].sent_at <= search.now


async def test_the_log_of_turns_that_follow_one_another_is_read_for_housekeeping_only_now_and_then(chat: Chat) -> None:
    """A turn every four seconds, whose calls are entered two seconds after its end."""
    older, read_again = 0, set[str]()
    for number in range(16):
        turn = await completed(chat, f"message {number}")
        await chat.world.let_pass(chat.user_id, 2)
        await chat.world.make_due(chat.user_id)
        [search] = await chat.world.ledger.due(10)
        again = {one.turn_id for one in search.attempts if one.is_settled and one.sent_at >= search.since}
        older += bool(again)
        read_again |= again
        await chat.world.ledger.enter(chat.user_id, charged(turn, call(), call()))
        await chat.world.let_pass(chat.user_id, 2)
    assert older <= 3
    assert len(read_again) >= 10


async def test_a_search_has_the_time_at_which_an_attempt_was_stopped(chat: Chat) -> None:
    turn, lease = await chat.running()
    asked = await chat.store.request_cancel(chat.user_id, turn.id)
    await chat.end(lease, turn, CANCELLED)
    search = await chat.world.ledger.search(chat.user_id, turn.created_at - timedelta(hours=1))
    assert [attempt.stopped_at for attempt in search.attempts] == [asked.cancel_requested_at]
    assert asked.cancel_requested_at is not None


async def test_a_search_has_the_calls_that_are_entered_already(chat: Chat) -> None:
    turn = await completed(chat)
    made, other = call("0.06"), call("0.03")
    await chat.world.ledger.enter(
        chat.user_id,
        Findings((LedgerEntry(made, turn.id, 1), LedgerEntry(other, None, None)), (SettledAttempt(turn.id, 1),)),
    )
    search = await chat.world.ledger.search(chat.user_id, turn.created_at - timedelta(hours=1))
    assert search.known == {
        made.request_id: KnownCall(turn.id, 1, Decimal("0.06")),
        other.request_id: KnownCall(None, None, Decimal("0.03")),
    }
    assert [attempt.is_settled for attempt in search.attempts] == [True]


async def test_a_search_includes_the_previous_attempt(chat: Chat) -> None:
    turns = [await completed(chat, str(number)) for number in range(3)]
    assert turns[2].started_at is not None
    search = await chat.world.ledger.search(chat.user_id, turns[2].started_at)
    wanted = {turn.id for turn in turns[1:]}
    assert wanted <= {attempt.turn_id for attempt in search.attempts}


async def test_rows_are_listed_by_day_with_every_digit(chat: Chat) -> None:
    turn = await completed(chat)
    made = call("0.00000012345678901234", 3, 2, cached_tokens=1, reasoning_tokens=1)
    await chat.world.ledger.enter(chat.user_id, charged(turn, made))
    [row] = await rows(chat)
    assert row == LedgerRow(
        made.request_id, turn.id, "settled", "success", "gpt-4", 3, 2, 1, 1, made.cost, row.started_at, None
    )
    today = datetime.now(UTC).date()
    assert await chat.world.ledger.rows(chat.user_id, today - timedelta(days=9), today - timedelta(days=2)) == []


async def rows(chat: Chat) -> list[LedgerRow]:
    today = datetime.now(UTC).date()
    return await chat.world.ledger.rows(chat.user_id, today - timedelta(days=1), today)


async def test_calls_are_searched_for_by_every_key_of_the_user(chat: Chat) -> None:
    await completed(chat)
    claim = await chat.world.accounts.claim(chat.user_id, "tests", 30)
    assert claim is not None
    old, new = f"old-{chat.user_id}", f"new-{chat.user_id}"
    for key_hash in (old, new):
        await chat.world.accounts.record(claim, AccountChange(encrypted_key=f"v1:{key_hash}", key_hash=key_hash))

    search = await chat.world.ledger.search(chat.user_id, datetime.now(UTC))

    assert set(search.key_hashes) == {old, new}
    assert await chat.world.ledger.key_hashes(chat.user_id) == [old, new]


async def test_a_hash_of_another_users_key_does_not_change_its_owner(chat: Chat) -> None:
    thief = await chat.world.sign_up()
    for user_id in (chat.user_id, thief):
        await chat.world.accounts.ensure(user_id, "ann@example.com", None)
        claim = await chat.world.accounts.claim(user_id, "tests", 30)
        assert claim is not None
        await chat.world.accounts.record(claim, AccountChange(encrypted_key=f"v1:{user_id}", key_hash=chat.user_id))
    assert await chat.world.ledger.key_hashes(chat.user_id) == [chat.user_id]
    assert await chat.world.ledger.key_hashes(thief) == []


async def test_a_user_who_is_deleted_leaves_no_rows(chat: Chat) -> None:
    turn = await completed(chat)
    await chat.world.ledger.enter(chat.user_id, charged(turn, call()))
    await chat.world.delete_user(chat.user_id)
    assert await rows(chat) == []
    with refused(ErrorCode.UNAUTHORIZED):
        await chat.world.ledger.enter(chat.user_id, charged(turn, call()))
