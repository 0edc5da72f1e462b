"""Running turns: started in order, ended once, with their reply, usage and cost stored."""

from decimal import Decimal

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.shapes import TurnError, TurnStatus, Usage
from tests.contract.stores.chat import CANCELLED, COMPLETED, FAILED, RUNNING, UNSENT, Chat
from tests.contract.stores.worlds import Day


async def test_start_returns_the_first_queued_turn_or_none(chat: Chat) -> None:
    turn, lease = await chat.running("1")
    second = await chat.say("2")
    await chat.end(lease, turn, COMPLETED, "ok")

    started = await chat.store.start(lease)

    assert started
    assert (started.turn.id, started.turn.status) == (second.turn.id, RUNNING)
    await chat.end(lease, second.turn, COMPLETED, "ok")
    assert await chat.store.start(lease) is None


async def test_starting_again_after_a_lost_answer_returns_the_same_turn(chat: Chat) -> None:
    accepted = await chat.say("1", start=False)
    await chat.say("2", start=False)
    assert accepted.lease

    first, again = await chat.store.start(accepted.lease), await chat.store.start(accepted.lease)

    assert first == again
    assert first
    assert first.turn.id == accepted.turn.id


async def test_a_run_is_stored_for_the_running_attempt_only(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.store.set_run(lease, turn.id, 2, "run-of-no-attempt")
    await chat.store.set_run(lease, turn.id, 1, "run-1")
    await chat.end(lease, turn, FAILED)
    await chat.store.set_run(lease, turn.id, 1, "run-late")

    stored = await chat.store.turn(chat.user_id, turn.id)
    assert stored
    assert stored.run_id == "run-1"


async def test_a_completed_turn_keeps_the_reason_why_it_has_no_text(chat: Chat) -> None:
    turn, lease = await chat.running()
    ended = await chat.end(lease, turn, COMPLETED, "", reason="Nothing to say.")

    stored = await chat.store.turn(chat.user_id, turn.id)
    assert stored == ended
    assert stored.reason == "Nothing to say."
    assert stored.message
    assert stored.message.content == ""
    other, lease = await chat.running("2")
    assert (await chat.end(lease, other, COMPLETED, "ok")).reason is None


async def test_turns_are_found_by_runs_of_earlier_attempts(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.store.set_run(lease, turn.id, 1, "run-1")
    await chat.end(lease, turn, CANCELLED)
    again = await chat.again(turn)
    assert again.started
    assert again.turn.run_id is None
    await chat.store.set_run(lease, turn.id, 2, "run-2")

    old, new = [await chat.store.turn_by_run(chat.user_id, run) for run in ("run-1", "run-2")]

    assert old
    assert new
    assert (old.id, old.run_id, new.id) == (turn.id, "run-2", turn.id)
    assert await chat.store.turn_by_run(chat.user_id, "run-3") is None
    assert await chat.store.turn_by_run(await chat.world.sign_up(), "run-1") is None


async def test_a_completed_turn_keeps_its_reply_usage_and_cost(chat: Chat) -> None:
    turn, lease = await chat.running()
    usage = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15, cached_tokens=3, model_calls=2)

    done = await chat.end(lease, turn, COMPLETED, "the reply", usage=usage, cost=Decimal("0.0000012345678901"))

    assert (done.status, done.usage, done.cost, done.cost_status) == (
        COMPLETED,
        usage,
        Decimal("0.0000012345678901"),
        "estimated",
    )
    assert done.finished_at is not None
    assert done.message
    assert (done.message.content, done.message.status, done.message.position) == ("the reply", "complete", 3)
    assert (done.message.tokens_used, done.message.cost) == (15, Decimal("0.000001"))
    assert await chat.store.turn(chat.user_id, turn.id) == done
    assert await chat.world.history(chat.user_id) == [done.user_message, done.message]
    assert await chat.world.today(chat.user_id) == Day(2, 15, Decimal("0.0000012345678901"))


async def test_finishing_twice_changes_nothing(chat: Chat) -> None:
    turn, lease = await chat.running()
    first = await chat.end(lease, turn, COMPLETED, "one", usage=Usage(3, 2, 5), cost=Decimal("0.5"))
    again = await chat.end(lease, turn, FAILED, "two", usage=Usage(9, 0, 9), cost=Decimal(9))

    assert again == first
    assert await chat.world.today(chat.user_id) == Day(2, 5, Decimal("0.5"))


async def test_the_end_of_an_earlier_attempt_does_not_end_the_present_one(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.end(lease, turn, FAILED)
    second = (await chat.again(turn)).turn

    late = await chat.end(lease, turn, FAILED, "late")

    assert (late.status, late.attempt, late.message) == (RUNNING, 2, None)
    assert (await chat.end(lease, second, COMPLETED, "ok")).status is COMPLETED


async def test_a_waiting_turn_can_be_ended_without_having_run(chat: Chat) -> None:
    accepted = await chat.say("hello", start=False)
    assert accepted.lease
    error = TurnError(ErrorCode.AGENT_UNAVAILABLE, "Not ready.", retryable=True, retry_after=5)

    done = await chat.end(accepted.lease, accepted.turn, FAILED, error=error)

    assert (done.status, done.error, done.started_at, done.message) == (FAILED, error, None, None)


async def test_an_empty_reply_is_a_message_only_when_the_turn_completed(chat: Chat) -> None:
    failed, completed = await chat.ended("1", FAILED), await chat.ended("2", COMPLETED)

    assert failed.message is None
    assert completed.message
    assert (completed.message.content, completed.message.status) == ("", "complete")


@pytest.mark.parametrize("status", [FAILED, CANCELLED])
async def test_a_partial_reply_is_kept_and_marked(chat: Chat, status: TurnStatus) -> None:
    done = await chat.ended("hello", status, "so f")

    assert done.message
    assert (done.message.content, done.message.status, done.user_message.status) == ("so f", "partial", "complete")


@pytest.mark.parametrize("status", [COMPLETED, FAILED, CANCELLED])
async def test_a_reply_keeps_its_steps_unchanged(chat: Chat, status: TurnStatus) -> None:
    steps = (
        {"type": "reasoning.delta", "text": 'я "\\" \u2028 \U0001f600 \\u0000', "truncated": True},
        {"type": "tool.called", "call_id": "c1", "name": "search", "arguments": '{"q": "\\u0000"}', "truncated": False},
        {"type": "tool.returned", "call_id": "c1", "name": "search", "status": "denied"},
    )
    turn, lease = await chat.running()

    done = await chat.end(lease, turn, status, "so f", steps=steps)

    assert done.message
    assert done.message.steps is None
    assert await chat.steps(turn) == steps


async def test_a_turn_without_text_keeps_its_steps_with_an_empty_message(chat: Chat) -> None:
    turn, lease = await chat.running()

    done = await chat.end(lease, turn, CANCELLED, steps=({"type": "reasoning.delta", "text": "Hm."},))

    assert done.message
    assert (done.message.content, done.message.status) == ("", "partial")
    assert await chat.steps(turn) == ({"type": "reasoning.delta", "text": "Hm."},)
    assert await chat.steps(await chat.ended("without", COMPLETED, "Hello.")) == ()


async def test_an_unsent_turn_has_no_cost(chat: Chat) -> None:
    turn, lease = await chat.running()
    error = TurnError(ErrorCode.BUDGET_EXCEEDED, "Used up.", retryable=True)
    done = await chat.end(lease, turn, UNSENT, "ignored", usage=Usage(3, 2, 5), error=error)

    assert (done.status, done.user_message.status, done.error) == (UNSENT, "unsent", error)
    assert (done.usage, done.cost, done.message, done.started_at) == (None, None, None, None)
    assert await chat.world.today(chat.user_id) == Day(1, 0, Decimal(0))


async def test_a_missing_price_leaves_the_cost_unknown(chat: Chat) -> None:
    turn, lease = await chat.running()
    done = await chat.end(lease, turn, COMPLETED, "ok", usage=Usage(3, 2, 5))

    assert done.cost is None
    assert done.message
    assert done.message.cost is None


async def test_many_tiny_costs_do_not_round_to_nothing(chat: Chat) -> None:
    for number in range(5):
        turn, lease = await chat.running(str(number))
        await chat.end(lease, turn, COMPLETED, "ok", usage=Usage(1, 0, 1), cost=Decimal("0.0000004"))

    assert (await chat.world.today(chat.user_id)).cost == Decimal("0.0000020")
