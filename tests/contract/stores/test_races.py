"""Concurrent operations on one user's rows have a consistent result."""

import asyncio
from decimal import Decimal

from server.ports import FencedError, Findings, LedgerEntry
from server.protocol.errors import PlatformError
from server.protocol.shapes import Usage
from tests.contract.stores.calls import call
from tests.contract.stores.chat import CANCELLED, COMPLETED, FAILED, RUNNING, Chat, ending
from tests.contract.stores.worlds import Day


async def test_one_id_sent_concurrently_by_many_devices_is_one_turn(chat: Chat) -> None:
    accepted = await asyncio.gather(*(chat.say("hello", owner=f"{chat.here}-{n % 3}") for n in range(12)))

    assert len({a.turn.id for a in accepted}) == 1
    assert sum(not a.duplicate for a in accepted) == 1
    assert len({a.lease.owner for a in accepted if a.lease}) == 1
    assert (await chat.world.today(chat.user_id)).messages == 1


async def test_concurrent_messages_get_numbers_without_gaps_and_one_runs(chat: Chat) -> None:
    accepted = await asyncio.gather(*(chat.say(str(n), waiting=20) for n in range(12)))

    assert sorted(a.turn.number for a in accepted) == list(range(1, 13))
    assert sum(a.started for a in accepted) == 1
    running, waiting = await chat.store.open_turns(chat.user_id)
    assert running
    assert [running.number, *(turn.number for turn in waiting)] == list(range(1, 13))


async def test_the_queue_never_grows_beyond_its_limit(chat: Chat) -> None:
    await chat.running()
    answers = await asyncio.gather(*(chat.say(str(n), waiting=3) for n in range(10)), return_exceptions=True)

    assert sum(isinstance(answer, PlatformError) for answer in answers) == 7
    assert len((await chat.store.open_turns(chat.user_id))[1]) == 3


async def test_one_of_many_concurrent_claims_succeeds(chat: Chat) -> None:
    await chat.say("hello", start=False)
    await chat.expire()

    claims = await asyncio.gather(*(chat.store.claim(chat.user_id, f"{chat.there}-{n}") for n in range(8)))

    assert sum(claim is not None for claim in claims) == 1


async def test_concurrent_finishes_charge_once(chat: Chat) -> None:
    turn, lease = await chat.running()
    ends = [ending(turn, COMPLETED, str(n), usage=Usage(3, 2, 5), cost=Decimal(1)) for n in range(8)]

    stored = await asyncio.gather(*(chat.store.finish(lease, end) for end in ends))

    assert all(turn == stored[0] for turn in stored)
    assert await chat.world.today(chat.user_id) == Day(2, 5, Decimal(1))


async def test_a_takeover_concurrent_with_the_end_is_consistent(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.expire()

    end, claim = await asyncio.gather(
        chat.store.finish(lease, ending(turn, COMPLETED, "mine")),
        chat.store.claim(chat.user_id, chat.there),
        return_exceptions=True,
    )

    assert claim is not None
    assert not isinstance(claim, BaseException)
    if isinstance(end, FencedError):
        assert claim.running
        assert claim.running.id == turn.id
    else:
        assert not isinstance(end, BaseException)
        assert (end.status, claim.running) == (COMPLETED, None)


async def test_a_turn_cancelled_concurrently_with_its_start_is_ended_or_marked(chat: Chat) -> None:
    accepted = await chat.say("hello", start=False)
    assert accepted.lease

    started, cancelled = await asyncio.gather(
        chat.store.start(accepted.lease), chat.store.request_cancel(chat.user_id, accepted.turn.id)
    )

    if started is None:
        assert cancelled.status is CANCELLED
    else:
        assert (cancelled.status, cancelled.cancel_requested_at is not None) == (RUNNING, True)


async def test_all_operations_concurrently_do_not_deadlock_and_run_one_turn(chat: Chat) -> None:
    users = [chat, *[Chat(chat.world, await chat.world.sign_up()) for _ in range(3)]]
    for user in users:
        user.here = chat.here

    async def live(user: Chat) -> None:
        for n in range(4):
            accepted = await user.say(f"{n}", ("enqueue", "interrupt")[n % 2], waiting=50)
            assert accepted.lease
            await user.store.request_cancel(user.user_id, accepted.turn.id)
            started = await user.store.start(accepted.lease)
            if started:
                await user.end(accepted.lease, started.turn, (FAILED, COMPLETED)[n % 2], "text")
            await user.store.renew(user.here)

    await asyncio.gather(*(live(user) for user in users for _ in range(2)))

    for user in users:
        history = await user.world.history(user.user_id)
        assert [message.position for message in history] == sorted({message.position for message in history})


async def test_two_hundred_calls_entered_concurrently_for_one_day_are_all_counted(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.end(lease, turn, COMPLETED, "ok")
    calls = [call("0.001", 2, 1) for _ in range(200)]

    settled = (chat.world.ledger.enter(chat.user_id, Findings((LedgerEntry(one, turn.id, 1),))) for one in calls)
    await asyncio.gather(*settled)

    assert await chat.world.today(chat.user_id) == Day(2, 600, Decimal("0.200"))
    stored = await chat.store.turn(chat.user_id, turn.id)
    assert stored
    assert (stored.cost, stored.usage) == (Decimal("0.200"), Usage(400, 200, 600, model_calls=200))


async def test_two_hundred_attempts_that_end_concurrently_on_one_day_are_all_counted(chat: Chat) -> None:
    """Turns of one user run one after another; what ends at once are the settlements of some and the end of another."""
    for number in range(10):
        turn, lease = await chat.running(str(number))
        usage, cost = Usage(2, 1, 3, model_calls=1), Decimal("0.001")
        ended = chat.end(lease, turn, COMPLETED, "ok", usage=usage, cost=cost)
        others = (
            chat.world.ledger.enter(chat.user_id, Findings((LedgerEntry(call("0.001", 2, 1), None, None),)))
            for _ in range(19)
        )
        await asyncio.gather(ended, *others)
    assert await chat.world.today(chat.user_id) == Day(20, 600, Decimal("0.200"))
