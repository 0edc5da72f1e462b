"""How many messages a user may store: per minute, behind a turn that is stopping, and over budget."""

import asyncio
import time

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.contract.stores.chat import CANCELLED, COMPLETED, FAILED, QUEUED, RUNNING, UNSENT, Chat, refused
from tests.contract.stores.test_budgets import budget, spend


async def test_a_users_messages_of_a_minute_may_be_sent_in_one_burst(chat: Chat) -> None:
    began = time.monotonic()
    for n in range(3):
        await chat.say(f"{n}", per_minute=3)
    with pytest.raises(PlatformError) as raised:
        await chat.say("one more", per_minute=3)
    passed = time.monotonic() - began
    assert raised.value.code is ErrorCode.RATE_LIMITED
    assert 20 - passed - 1 < (raised.value.retry_after or 0) <= 20
    assert len(await chat.world.history(chat.user_id)) == 3


async def test_a_refused_message_may_be_sent_later_with_the_same_id(chat: Chat) -> None:
    for text in ("one", "two"):
        await chat.say(text, per_minute=2)
    with refused(ErrorCode.RATE_LIMITED):
        await chat.say("first words", id="three", per_minute=2)
    await chat.world.let_pass(chat.user_id, 30)
    assert not (await chat.say("other words", id="three", per_minute=2)).duplicate
    with refused(ErrorCode.RATE_LIMITED):
        await chat.say("four", per_minute=2)


async def test_a_repeated_message_is_a_duplicate_and_does_not_count(chat: Chat) -> None:
    first = await chat.say("one", per_minute=2)
    for _ in range(5):
        assert (await chat.say("one", per_minute=2)).turn.id == first.turn.id
    assert not (await chat.say("two", per_minute=2)).duplicate
    assert (await chat.say("one", per_minute=2)).duplicate
    with refused(ErrorCode.ID_CONFLICT):
        await chat.say("other words", id="one", per_minute=2)


async def test_refused_messages_do_not_count(chat: Chat) -> None:
    await chat.say("one", per_minute=3)
    for _ in range(5):
        with refused(ErrorCode.BUSY):
            await chat.say("two", "reject", per_minute=3)
        with refused(ErrorCode.OVERLOADED):
            await chat.say("two", overloaded=True, per_minute=3)
    for text in ("two", "three"):
        await chat.say(text, per_minute=3)
    with refused(ErrorCode.RATE_LIMITED):
        await chat.say("four", per_minute=3)


async def test_retries_and_interrupts_count_as_messages(chat: Chat) -> None:
    failed = await chat.ended("fails", FAILED)
    await chat.again(failed, per_minute=2)
    await chat.say("stop", "interrupt", per_minute=2)
    with refused(ErrorCode.RATE_LIMITED):
        await chat.say("stop again", "interrupt", per_minute=2)
    assert (await chat.again(failed, per_minute=2)).duplicate


async def test_a_retry_that_comes_too_soon_changes_nothing(chat: Chat) -> None:
    failed = await chat.ended("fails", FAILED)
    await chat.say("one", per_minute=1)
    with refused(ErrorCode.RATE_LIMITED):
        await chat.again(failed, per_minute=1)
    assert await chat.store.turn(chat.user_id, failed.id) == failed


async def test_the_rate_is_shared_by_all_instances(chat: Chat) -> None:
    await chat.say("one", per_minute=2)
    await chat.say("two", owner=chat.there, per_minute=2)
    with refused(ErrorCode.RATE_LIMITED):
        await chat.say("three", owner=chat.there, per_minute=2)
    other = Chat(chat.world, await chat.world.sign_up())
    assert (await other.say("one", per_minute=1)).started


async def test_without_a_rate_no_message_is_refused(chat: Chat) -> None:
    for n in range(40):
        await chat.say(f"{n}", waiting=50)


async def test_concurrent_messages_are_limited_to_the_rate(chat: Chat) -> None:
    said = (chat.say(f"{n}", waiting=50, per_minute=2) for n in range(25))
    outcomes = await asyncio.gather(*said, return_exceptions=True)
    refusals = [one for one in outcomes if isinstance(one, PlatformError)]
    assert (len(refusals), {one.code for one in refusals}) == (23, {ErrorCode.RATE_LIMITED})
    assert len(await chat.world.history(chat.user_id)) == 2


async def test_interrupts_count_against_the_queue_while_the_running_turn_is_stopping(chat: Chat) -> None:
    running, lease = await chat.running()
    for n in range(2):
        await chat.say(f"waits {n}", waiting=2)
    # The first finds the queue full and empties it; the following ones fill it until the running turn has ended.
    for n in range(3):
        await chat.say(f"stop {n}", "interrupt", waiting=2)
    with refused(ErrorCode.QUEUE_FULL):
        await chat.say("stop!", "interrupt", waiting=2)
    _, (waits,) = await chat.store.open_turns(chat.user_id)
    assert waits.user_message.content == "stop 2"

    await chat.end(lease, running, CANCELLED)
    started = await chat.store.start(lease)
    assert started is not None
    assert (started.turn.id, started.turn.status) == (waits.id, RUNNING)
    assert (await chat.say("stop!", "interrupt", waiting=2)).interrupted


async def test_an_interrupt_without_a_running_turn_is_limited_by_the_queue(chat: Chat) -> None:
    await spend(chat, "0.5")
    await chat.running("first")
    await chat.say("second")
    await chat.world.ledger.store_budget(chat.user_id, budget("0.5"))
    with refused(ErrorCode.QUEUE_FULL):
        await chat.say("stop that", "interrupt", waiting=1)


async def over_budget(chat: Chat, unsent: int) -> list[str]:
    """A user who has used the budget up, and left so many turns unsent. Returns their ids."""
    await spend(chat, "0.5")
    await chat.world.ledger.store_budget(chat.user_id, budget("0.5"))
    turns = [(await chat.say(f"unsent {n}", unsent=unsent)).turn for n in range(unsent)]
    assert {turn.status for turn in turns} == {UNSENT}
    return [turn.id for turn in turns]


async def test_over_budget_a_limited_number_of_messages_is_stored_as_unsent(chat: Chat) -> None:
    await over_budget(chat, 3)
    stored = await chat.world.history(chat.user_id)
    with pytest.raises(PlatformError) as raised:
        await chat.say("first words", id="more", unsent=3)
    assert raised.value.code is ErrorCode.BUDGET_EXCEEDED
    assert {name: raised.value.members[name] for name in ("spent", "limit")} == {"spent": "0.5", "limit": "0.5"}
    assert raised.value.members["resets_at"] is not None
    assert await chat.world.history(chat.user_id) == stored
    assert (await chat.say("unsent 0", unsent=3)).duplicate

    await chat.world.ledger.store_budget(chat.user_id, budget("1"))
    assert (await chat.say("other words", id="more", unsent=3)).started


async def test_an_interrupt_over_budget_is_refused_as_any_message(chat: Chat) -> None:
    await over_budget(chat, 2)
    for on_busy in ("enqueue", "reject", "interrupt"):
        with refused(ErrorCode.BUDGET_EXCEEDED):
            await chat.say("more", on_busy, unsent=2)


async def test_a_turn_that_is_retried_no_longer_counts(chat: Chat) -> None:
    first, *_ = await over_budget(chat, 2)
    turn = await chat.store.turn(chat.user_id, first)
    assert turn is not None
    assert (await chat.again(turn, unsent=2)).turn.status is UNSENT  # it replaces itself
    await chat.world.ledger.store_budget(chat.user_id, budget("1"))
    sent = await chat.again(turn, unsent=2)
    assert sent.lease is not None
    await chat.end(sent.lease, sent.turn, COMPLETED, "ok")
    await chat.world.ledger.store_budget(chat.user_id, budget("0.5"))
    assert (await chat.say("one more", unsent=2)).turn.status is UNSENT
    with refused(ErrorCode.BUDGET_EXCEEDED):
        await chat.say("two more", unsent=2)


async def test_a_retry_adds_nothing_to_those_that_are_kept_unsent(chat: Chat) -> None:
    failed = await chat.ended("fails", FAILED)
    await over_budget(chat, 2)
    with refused(ErrorCode.BUDGET_EXCEEDED):
        await chat.again(failed, unsent=2)
    assert await chat.store.turn(chat.user_id, failed.id) == failed


async def test_unsent_messages_are_counted_per_period(chat: Chat) -> None:
    await over_budget(chat, 2)
    await chat.world.end_period(chat.user_id)
    await spend(chat, "0.5", "in the new period")
    assert (await chat.say("one", unsent=2)).turn.status is UNSENT
    assert (await chat.say("two", unsent=2)).turn.status is UNSENT
    with refused(ErrorCode.BUDGET_EXCEEDED):
        await chat.say("three", unsent=2)


async def test_queued_turns_are_stored_as_unsent_beyond_the_limit(chat: Chat) -> None:
    await chat.world.accounts.ensure(chat.user_id, "ann@example.com", None)
    await chat.world.ledger.store_budget(chat.user_id, budget("0.5"))
    turn, lease = await chat.running("first")
    waiting = [(await chat.say(f"waits {n}", unsent=1)).turn for n in range(2)]
    assert {one.status for one in waiting} == {QUEUED}
    await chat.world.ledger.store_budget(chat.user_id, budget("0"))
    await chat.end(lease, turn, CANCELLED)
    ended = [await chat.store.start(lease) for _ in waiting]
    assert [one.turn.status for one in ended if one] == [UNSENT, UNSENT]
