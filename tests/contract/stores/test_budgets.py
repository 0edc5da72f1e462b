"""Budgets: a used-up budget refuses the next message, when accepted or started; warnings are sent before."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from server.ports import Budget, BudgetWarning, Findings
from server.protocol.codes import ERRORS, ErrorCode
from server.protocol.shapes import TurnError, Usage
from tests.contract.stores.calls import call, charged
from tests.contract.stores.chat import COMPLETED, FAILED, QUEUED, RUNNING, UNSENT, Chat

RESET = (datetime.now(UTC) + timedelta(days=20)).replace(microsecond=0)


def budget(limit: str | None, resets_at: datetime | None = RESET) -> Budget:
    return Budget(None if limit is None else Decimal(limit), Decimal(0), "30d", resets_at)


async def spend(chat: Chat, cost: str, text: str = "spend") -> None:
    """A completed turn that cost this much, by estimate."""
    turn, lease = await chat.running(text)
    await chat.end(lease, turn, COMPLETED, "ok", usage=Usage(1, 1, 2, model_calls=1), cost=Decimal(cost))


async def test_over_budget_a_message_is_kept_as_unsent_and_not_started(chat: Chat) -> None:
    await spend(chat, "0.5")
    assert await chat.world.ledger.store_budget(chat.user_id, budget("0.5"))

    refused = await chat.say("one more")

    turn = refused.turn
    assert (refused.started, turn.status, turn.user_message.status, turn.cost) == (False, UNSENT, "unsent", None)
    assert turn.error == TurnError(
        ErrorCode.BUDGET_EXCEEDED,
        ERRORS[ErrorCode.BUDGET_EXCEEDED].sentence,  # which SQL writes as well
        retryable=True,
        spent=Decimal("0.5"),
        limit=Decimal("0.5"),
        resets_at=RESET,
    )
    again = await chat.say("one more")
    assert (again.duplicate, again.turn) == (True, turn)


async def test_over_budget_a_message_interrupts_nothing(chat: Chat) -> None:
    await spend(chat, "0.5")
    running, _ = await chat.running("first")
    waiting = await chat.say("second")
    await chat.world.ledger.store_budget(chat.user_id, budget("0.5"))

    refused = await chat.say("stop that", on_busy="interrupt")

    assert (refused.turn.status, refused.cancelled, refused.interrupted) == (UNSENT, (), None)
    still = await chat.store.open_turns(chat.user_id)
    assert still[0] is not None
    assert (still[0].id, still[0].cancel_requested_at) == (running.id, None)
    assert [turn.id for turn in still[1]] == [waiting.turn.id]


async def test_below_the_limit_to_the_last_digit_a_message_is_sent(chat: Chat) -> None:
    await spend(chat, "0.49999999999999999")
    assert not await chat.world.ledger.store_budget(chat.user_id, budget("0.5"))
    assert (await chat.say("one more")).started


async def test_without_a_known_limit_no_message_is_refused(chat: Chat) -> None:
    await spend(chat, "1000")
    assert not await chat.world.ledger.store_budget(chat.user_id, budget(None))
    assert (await chat.say("one more")).started


async def test_a_queued_turn_is_unsent_if_the_previous_one_used_up_the_budget(chat: Chat) -> None:
    await chat.world.accounts.ensure(chat.user_id, "ann@example.com", None)
    await chat.world.ledger.store_budget(chat.user_id, budget("0.5"))
    turn, lease = await chat.running("first")
    second, third = await chat.say("second"), await chat.say("third")
    assert (second.turn.status, third.turn.status) == (QUEUED, QUEUED)
    await chat.end(lease, turn, COMPLETED, "ok", usage=Usage(1, 1, 2, model_calls=1), cost=Decimal("0.6"))

    outcomes = [await chat.store.start(lease) for _ in range(3)]

    ended = [started.turn for started in outcomes if started is not None]
    assert [(one.id, one.status) for one in ended] == [(second.turn.id, UNSENT), (third.turn.id, UNSENT)]
    assert ended[0].error
    assert ended[0].error.code is ErrorCode.BUDGET_EXCEEDED
    assert [message.status for message in await chat.world.history(chat.user_id)][-2:] == ["unsent", "unsent"]


async def test_a_raised_limit_lets_the_unsent_message_be_retried(chat: Chat) -> None:
    await spend(chat, "0.5")
    await chat.world.ledger.store_budget(chat.user_id, budget("0.5"))
    unsent = (await chat.say("one more")).turn
    still = await chat.again(unsent)
    assert (still.turn.status, still.turn.attempt, still.started) == (UNSENT, 2, False)

    await chat.world.ledger.store_budget(chat.user_id, budget("1"))
    sent = await chat.again(unsent)

    assert (sent.turn.status, sent.turn.error, sent.turn.user_message.status) == (RUNNING, None, "complete")


async def test_a_new_period_begins_at_the_reset_time_before_the_next_refresh(chat: Chat) -> None:
    await spend(chat, "0.5")
    await chat.world.ledger.store_budget(chat.user_id, budget("0.5"))
    assert (await chat.say("refused")).turn.status is UNSENT
    await chat.world.end_period(chat.user_id)
    sent = await chat.say("in the new period")
    assert sent.started
    assert sent.lease
    await chat.end(sent.lease, sent.turn, COMPLETED, "ok", usage=Usage(1, 1, 2, model_calls=1), cost=Decimal("0.4"))
    # Storing the next reset time does not restore the old period.
    assert not await chat.world.ledger.store_budget(chat.user_id, budget("0.5", RESET + timedelta(days=30)))
    assert await chat.world.ledger.store_budget(chat.user_id, budget("0.4", RESET + timedelta(days=30)))


async def test_a_moved_reset_time_does_not_begin_a_new_period(chat: Chat) -> None:
    await spend(chat, "0.5")
    await chat.world.ledger.store_budget(chat.user_id, budget("0.5"))
    assert await chat.world.ledger.store_budget(chat.user_id, budget("0.5", RESET + timedelta(days=3)))


async def test_a_turn_that_the_gateway_refused_has_the_state_of_the_budget(chat: Chat) -> None:
    await spend(chat, "0.3")
    await chat.world.ledger.store_budget(chat.user_id, budget("0.5"))
    turn, lease = await chat.running()
    said = TurnError(ErrorCode.BUDGET_EXCEEDED, "Used up.", retryable=True)
    ended = await chat.end(lease, turn, FAILED, "so f", error=said)
    assert ended.error
    assert (ended.error.message, ended.error.spent, ended.error.limit) == ("Used up.", Decimal("0.3"), Decimal("0.5"))


async def test_each_budget_level_is_warned_of_once_in_a_period(chat: Chat) -> None:
    await chat.world.accounts.ensure(chat.user_id, "ann@example.com", None)
    await chat.world.ledger.store_budget(chat.user_id, budget("1"))
    warnings = []
    for number, cost in enumerate(["0.7", "0.09", "0.01", "0.1", "0.1", "0.5"]):
        turn, lease = await chat.running(str(number))
        await chat.end(lease, turn, COMPLETED, "ok")
        settlement = await chat.world.ledger.enter(chat.user_id, charged(turn, call(cost)))
        warnings.append(settlement.warning)
        if number == 4:
            await chat.world.ledger.store_budget(chat.user_id, budget("2"))
    assert warnings == [
        None,
        None,
        BudgetWarning(Decimal("0.80"), Decimal(1), 80),
        None,
        BudgetWarning(Decimal("1.00"), Decimal(1), 100),
        None,
    ]
    turn, lease = await chat.running("last")
    await chat.end(lease, turn, COMPLETED, "ok")
    settlement = await chat.world.ledger.enter(chat.user_id, charged(turn, call("0.1")))
    assert settlement.warning == BudgetWarning(Decimal("1.60"), Decimal(2), 80)
    assert (await chat.world.ledger.enter(chat.user_id, Findings())).warning is None
