"""Cancelling: stored first, by any instance; turns that were not sent are not charged."""

from server.protocol.codes import ErrorCode
from tests.contract.stores.chat import CANCELLED, COMPLETED, RUNNING, Chat, refused


async def test_cancelling_a_running_turn_marks_it_once(chat: Chat) -> None:
    turn, _ = await chat.running()
    first = await chat.store.request_cancel(chat.user_id, turn.id)
    again = await chat.store.request_cancel(chat.user_id, None)

    assert (first.status, again) == (RUNNING, first)
    assert first.cancel_requested_at is not None


async def test_cancelling_a_waiting_turn_ends_it_at_no_charge(chat: Chat) -> None:
    await chat.running("1")
    waiting = (await chat.say("2")).turn
    cancelled = await chat.store.request_cancel(chat.user_id, waiting.id)

    assert (cancelled.status, cancelled.cost, cancelled.message) == (CANCELLED, None, None)
    assert cancelled.finished_at is not None
    assert (await chat.store.open_turns(chat.user_id))[1] == ()


async def test_cancel_without_an_id_takes_the_running_turn_then_the_next(chat: Chat) -> None:
    turn, lease = await chat.running("1")
    waiting = [(await chat.say(text)).turn.id for text in ("2", "3")]
    assert (await chat.store.request_cancel(chat.user_id, None)).id == turn.id
    await chat.end(lease, turn, CANCELLED)

    assert (await chat.store.request_cancel(chat.user_id, None)).id == waiting[0]
    assert (await chat.store.request_cancel(chat.user_id, None)).id == waiting[1]
    with refused(ErrorCode.NOT_FOUND):
        await chat.store.request_cancel(chat.user_id, None)


async def test_cancelling_an_ended_turn_does_not_change_it(chat: Chat) -> None:
    done = await chat.ended("hello", COMPLETED, "ok")
    assert await chat.store.request_cancel(chat.user_id, done.id) == done


async def test_a_cancel_survives_the_owner(chat: Chat) -> None:
    turn, _ = await chat.running()
    await chat.store.request_cancel(chat.user_id, turn.id)
    await chat.expire()

    claim = await chat.store.claim(chat.user_id, chat.there)

    assert claim
    assert claim.running
    assert claim.running.cancel_requested_at is not None
