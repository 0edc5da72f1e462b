"""Deletion of accounts and of histories: what goes, what stays, and when it is refused."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from server.ports import FencedError
from server.protocol.codes import ErrorCode
from server.protocol.shapes import AgentStatus, TurnStatus, Usage
from tests.contract.stores.chat import Chat, refused
from tests.contract.stores.worlds import World


async def test_a_deletion_closes_the_account_and_cancels_what_is_open(world: World) -> None:
    chat = Chat(world, await world.sign_up())
    await world.accounts.ensure(chat.user_id, "ann@example.com", "Ann")
    running, _ = await chat.running("runs")
    waiting = (await chat.say("waits")).turn
    for _ in range(2):
        await world.accounts.begin_deletion(chat.user_id)
    account = await world.accounts.get(chat.user_id)
    assert account is not None
    assert account.agent_status is AgentStatus.DELETING
    stopping, cancelled = [await world.sessions.turn(chat.user_id, turn.id) for turn in (running, waiting)]
    assert stopping is not None
    assert (stopping.status, stopping.cancel_requested_at is not None) == (TurnStatus.RUNNING, True)
    assert cancelled is not None
    assert cancelled.status is TurnStatus.CANCELLED
    with refused(ErrorCode.ACCOUNT_BLOCKED):
        await chat.say("more")
    with refused(ErrorCode.ACCOUNT_BLOCKED):
        await chat.again(cancelled)


async def test_unfinished_deletions_are_found_unless_they_are_claimed(world: World) -> None:
    accounts = world.accounts
    waiting, claimed_one, active = [await world.sign_up() for _ in range(3)]
    for user_id in (waiting, claimed_one):
        await accounts.begin_deletion(user_id)
    await accounts.ensure(active, "active@example.com", None)
    assert await accounts.claim(claimed_one, "me", 30) is not None
    found = await accounts.unfinished_deletions(100_000)
    assert [user_id for user_id in found if user_id in (waiting, claimed_one, active)] == [waiting]


@pytest.mark.parametrize("keep", [True, False])
async def test_only_an_account_that_is_being_deleted_is_deleted_and_only_once(world: World, keep: bool) -> None:
    chat, other = Chat(world, await world.sign_up()), Chat(world, await world.sign_up())
    for one in (chat, other):
        turn, lease = await one.running("hello")
        await one.end(lease, turn, TurnStatus.COMPLETED, "hi", usage=Usage(10, 5, 15), cost=Decimal("0.25"))
    with pytest.raises(FencedError):
        await world.accounts.delete(chat.user_id, keep_spend=keep)
    before = await world.deleted_spend()
    await world.accounts.begin_deletion(chat.user_id)
    for _ in range(2):
        await world.accounts.delete(chat.user_id, keep_spend=keep)
    assert await world.accounts.get(chat.user_id) is None
    assert await world.history(chat.user_id) == []
    assert await world.deleted_spend() - before == (Decimal("0.25") if keep else 0)
    assert len(await world.history(other.user_id)) == 2
    with refused(ErrorCode.UNAUTHORIZED):
        await world.accounts.begin_deletion(chat.user_id)


async def test_a_deleted_history_leaves_figures_and_no_text(world: World) -> None:
    chat = Chat(world, await world.sign_up())
    turn, lease = await chat.running("hello")
    await chat.end(lease, turn, TurnStatus.COMPLETED, "hi", usage=Usage(10, 5, 15), cost=Decimal("0.25"))
    failed = await chat.ended("forget this", TurnStatus.FAILED)
    before = await world.today(chat.user_id)
    await world.accounts.delete_history(chat.user_id, "conv-2")

    account = await world.accounts.get(chat.user_id)
    assert account is not None
    assert account.conversation_id == "conv-2"
    assert await world.history(chat.user_id) == []
    assert await world.today(chat.user_id) == before
    for one in (turn, failed):
        assert await world.sessions.turn(chat.user_id, one.id) is None
        with refused(ErrorCode.NOT_FOUND):
            await world.sessions.request_cancel(chat.user_id, one.id)
        with refused(ErrorCode.NOT_FOUND):
            await chat.again(one)
    with refused(ErrorCode.ID_CONFLICT):
        await chat.say("hello")
    again = await chat.say("hello again")
    assert again.forgotten == ()
    assert again.turn.number == failed.number + 1
    with refused(ErrorCode.BUSY):
        await world.accounts.delete_history(chat.user_id, "conv-3")


@pytest.mark.parametrize("keep", [True, False])
async def test_the_usage_of_all_users_keeps_what_a_deleted_one_spent(world: World, keep: bool) -> None:
    chat = Chat(world, await world.sign_up())
    turn, lease = await chat.running("hello")
    await chat.end(lease, turn, TurnStatus.COMPLETED, "hi", usage=Usage(10, 5, 15), cost=Decimal("0.25"))
    today = datetime.now(UTC).date()

    async def spent() -> list[tuple[int, Decimal]]:
        """Tokens and cost of today, by day and by model."""
        usage = await world.admin.usage(today, today)
        days, models = usage.days, usage.models
        return [
            (sum(one.tokens for one in days), sum((one.cost for one in days), Decimal(0))),
            (sum(one.tokens for one in models), sum((one.cost for one in models), Decimal(0))),
        ]

    before = await spent()
    await world.accounts.begin_deletion(chat.user_id)
    await world.accounts.delete(chat.user_id, keep_spend=keep)
    gone = (0, Decimal(0)) if keep else (15, Decimal("0.25"))
    assert await spent() == [(tokens - gone[0], cost - gone[1]) for tokens, cost in before]
