"""Retrying: the same turn as a further attempt."""

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.limits import Allowance
from server.protocol.shapes import TurnError, TurnStatus
from tests.contract.stores.chat import CANCELLED, COMPLETED, FAILED, UNSENT, Chat, ids, refused


@pytest.mark.parametrize("status", [FAILED, CANCELLED, UNSENT])
async def test_an_ended_turn_runs_again_as_the_next_attempt(chat: Chat, status: TurnStatus) -> None:
    turn, lease = await chat.running()
    error = TurnError(ErrorCode.MODEL_ERROR, "Broken.", retryable=True)
    await chat.store.request_cancel(chat.user_id, turn.id)
    await chat.end(lease, turn, status, error=error)

    again = await chat.again(turn)

    assert (again.started, again.duplicate, again.turn.id, again.turn.attempt) == (True, False, turn.id, 2)
    assert (again.turn.error, again.turn.finished_at, again.turn.cancel_requested_at) == (None, None, None)
    assert again.turn.user_message == turn.user_message
    assert again.forgotten == ()


async def test_a_further_attempt_without_text_keeps_the_older_partial_reply(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.end(lease, turn, FAILED, "half")
    second = (await chat.again(turn)).turn
    done = await chat.end(lease, second, FAILED, "")

    assert done.message
    assert (done.message.content, done.message.status) == ("half", "partial")


async def test_a_further_attempt_with_text_replaces_the_steps(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.end(lease, turn, FAILED, steps=({"type": "reasoning.delta", "text": "first"},))
    second = (await chat.again(turn)).turn
    await chat.end(lease, second, FAILED, "half", steps=({"type": "reasoning.delta", "text": "second"},))
    third = (await chat.again(turn)).turn
    await chat.end(lease, third, FAILED, "", steps=({"type": "reasoning.delta", "text": "third"},))
    assert await chat.steps(turn) == ({"type": "reasoning.delta", "text": "second"},)
    fourth = (await chat.again(turn)).turn
    await chat.end(lease, fourth, COMPLETED, "whole")
    assert await chat.steps(turn) == ()


async def test_a_completed_turn_is_not_retried(chat: Chat) -> None:
    with refused(ErrorCode.NOT_RETRYABLE):
        await chat.again(await chat.ended("hello", COMPLETED))


async def test_retrying_an_open_turn_is_a_duplicate(chat: Chat) -> None:
    turn, lease = await chat.running("1")
    waiting = (await chat.say("2")).turn

    running_again, waiting_again = await chat.again(turn), await chat.again(waiting)

    assert [(a.duplicate, a.turn.attempt) for a in (running_again, waiting_again)] == [(True, 1), (True, 1)]
    assert running_again.lease == lease
    assert (running_again.started, waiting_again.started) == (True, False)


@pytest.mark.parametrize("turn_id", ["00000000-0000-4000-8000-000000000000", "nonsense", "' or 1=1 --"])
async def test_unknown_turns_are_not_found(chat: Chat, turn_id: str) -> None:
    assert await chat.store.turn(chat.user_id, turn_id) is None
    with refused(ErrorCode.NOT_FOUND):
        await chat.store.retry(chat.user_id, turn_id, chat.here, start=True, allowance=Allowance())
    with refused(ErrorCode.NOT_FOUND):
        await chat.store.request_cancel(chat.user_id, turn_id)


async def test_another_users_turn_is_not_found(chat: Chat) -> None:
    turn = await chat.ended("hello", FAILED)
    stranger = await chat.world.sign_up()

    assert await chat.store.turn(stranger, turn.id) is None
    with refused(ErrorCode.NOT_FOUND):
        await chat.store.retry(stranger, turn.id, chat.here, start=True, allowance=Allowance())
    with refused(ErrorCode.NOT_FOUND):
        await chat.store.request_cancel(stranger, turn.id)


async def test_a_retry_is_refused_by_a_full_queue(chat: Chat) -> None:
    failed = await chat.ended("0", FAILED)
    await chat.running("1")
    await chat.say("2")
    with refused(ErrorCode.QUEUE_FULL):
        await chat.again(failed, waiting=1)


async def test_a_retried_turn_is_queued_before_later_ones(chat: Chat) -> None:
    failed = await chat.ended("0", FAILED)
    await chat.running("1")
    later = (await chat.say("2")).turn

    retried = (await chat.again(failed)).turn

    assert retried.queue_position == 1
    _, waiting = await chat.store.open_turns(chat.user_id)
    assert ids(waiting) == [retried.id, later.id]


async def test_a_retried_unsent_message_is_sent_again(chat: Chat) -> None:
    again = await chat.again(await chat.ended("hello", UNSENT))
    assert again.turn.user_message.status == "complete"
