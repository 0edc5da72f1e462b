"""Reminders: sends carry failed and cancelled turns until a completed turn has carried them."""

from tests.contract.stores.chat import CANCELLED, COMPLETED, FAILED, UNSENT, Chat


async def test_failed_and_cancelled_turns_are_in_the_reminder_in_order_until_carried(chat: Chat) -> None:
    failed, cancelled = await chat.ended("1", FAILED, "half"), await chat.ended("2", CANCELLED)
    await chat.ended("3", UNSENT)

    reminding = await chat.say("4")
    assert [(f.turn_id, f.user_text, f.partial_reply) for f in reminding.forgotten] == [
        (failed.id, "1", "half"),
        (cancelled.id, "2", ""),
    ]
    assert reminding.lease
    await chat.end(reminding.lease, reminding.turn, COMPLETED, "ok", carried=(failed.id, cancelled.id))
    assert (await chat.say("5")).forgotten == ()


async def test_a_reminder_that_failed_is_repeated(chat: Chat) -> None:
    failed = await chat.ended("1", FAILED)
    second, lease = await chat.running("2")
    await chat.end(lease, second, FAILED)

    assert [f.turn_id for f in (await chat.say("3")).forgotten] == [failed.id, second.id]


async def test_a_failed_turn_that_carried_itself_is_not_in_the_reminder(chat: Chat) -> None:
    failed = await chat.ended("1", FAILED)
    refused, lease = await chat.running("2")
    await chat.end(lease, refused, FAILED, carried=(failed.id, refused.id))
    third, lease = await chat.running("3")
    await chat.end(lease, third, FAILED)

    assert [f.turn_id for f in (await chat.say("4")).forgotten] == [third.id]


async def test_a_turn_that_carried_itself_is_in_the_reminder_after_a_failed_retry(chat: Chat) -> None:
    refused, lease = await chat.running("1")
    await chat.end(lease, refused, FAILED, carried=(refused.id,))
    again = await chat.again(refused)
    assert again.lease
    await chat.end(again.lease, again.turn, FAILED)

    assert [f.turn_id for f in (await chat.say("2")).forgotten] == [refused.id]


async def test_turns_cancelled_while_waiting_were_never_sent_and_need_no_reminder(chat: Chat) -> None:
    turn, lease = await chat.running("1")
    waiting = (await chat.say("2")).turn
    await chat.store.request_cancel(chat.user_id, waiting.id)
    await chat.end(lease, turn, COMPLETED)

    assert (await chat.say("3")).forgotten == ()


async def test_a_carried_turn_is_in_the_reminder_after_a_failed_retry(chat: Chat) -> None:
    failed = await chat.ended("1", FAILED)
    turn, lease = await chat.running("2")
    await chat.end(lease, turn, COMPLETED, carried=(failed.id,))
    again = (await chat.again(failed)).turn
    await chat.end(lease, again, FAILED)

    assert [f.turn_id for f in (await chat.say("3")).forgotten] == [failed.id]


async def test_a_reminder_has_the_newest_ten_turns(chat: Chat) -> None:
    turns = [await chat.ended(str(number), FAILED) for number in range(12)]
    assert [f.turn_id for f in (await chat.say("next")).forgotten] == [turn.id for turn in turns[2:]]


async def test_turns_of_other_users_are_not_carried(chat: Chat) -> None:
    stranger = Chat(chat.world, await chat.world.sign_up())
    theirs = await stranger.ended("1", FAILED)
    turn, lease = await chat.running()
    await chat.end(lease, turn, COMPLETED, carried=(theirs.id,))

    assert [f.turn_id for f in (await stranger.say("2")).forgotten] == [theirs.id]
