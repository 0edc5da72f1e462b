"""Leases of sessions: claiming, renewing, releasing and taking over, and the fencing of former owners."""

import pytest

from server.ports import FencedError, Lease, LogMark, OwnedWork
from tests.contract.stores.chat import COMPLETED, FAILED, QUEUED, RUNNING, Chat, ending, ids


async def test_another_owner_may_accept_but_neither_claim_nor_start(chat: Chat) -> None:
    await chat.store.claim(chat.user_id, chat.there)

    accepted = await chat.say("hello")

    assert (accepted.lease, accepted.started, accepted.turn.status) == (None, False, QUEUED)
    assert await chat.store.claim(chat.user_id, chat.here) is None


async def test_claiming_again_renews_the_same_lease(chat: Chat) -> None:
    first = await chat.store.claim(chat.user_id, chat.here)
    again = await chat.store.claim(chat.user_id, chat.here)

    assert first
    assert again
    assert first.lease == again.lease == Lease(chat.user_id, chat.here, 1)


async def test_an_expired_lease_is_taken_over_with_the_next_fence_and_the_open_turns(chat: Chat) -> None:
    failed = await chat.ended("0", FAILED, "half")
    turn, lease = await chat.running("1")
    await chat.store.set_run(lease, turn.id, 1, "run-1")
    queued = await chat.say("2")
    await chat.world.let_leases_expire(chat.user_id)

    claim = await chat.store.claim(chat.user_id, chat.there)

    assert claim
    assert claim.lease == Lease(chat.user_id, chat.there, lease.fence + 1)
    assert claim.running
    assert (claim.running.id, claim.running.run_id, claim.running.status) == (turn.id, "run-1", RUNNING)
    assert ids(claim.queued) == [queued.turn.id]
    assert [(f.turn_id, f.user_text, f.partial_reply) for f in claim.forgotten] == [(failed.id, "0", "half")]


async def test_an_owners_own_expired_lease_gets_a_new_fence(chat: Chat) -> None:
    first = await chat.store.claim(chat.user_id, chat.here)
    await chat.expire()
    again = await chat.store.claim(chat.user_id, chat.here)

    assert first
    assert again
    assert again.lease.fence == first.lease.fence + 1


async def test_a_released_session_is_free_at_once(chat: Chat) -> None:
    _, lease = await chat.running()
    await chat.store.release(lease)

    claim = await chat.store.claim(chat.user_id, chat.there)

    assert claim
    assert claim.lease.fence == lease.fence + 1


MARK = LogMark("an-epoch", 57)


async def test_only_the_next_owner_gets_the_mark(chat: Chat) -> None:
    first = await chat.store.claim(chat.user_id, chat.here)
    assert first
    assert first.mark is None
    assert await chat.store.release(first.lease, MARK)
    second = await chat.store.claim(chat.user_id, chat.there)
    again = await chat.store.claim(chat.user_id, chat.there)  # the answer to the first call was lost
    assert second
    assert again
    assert (second.mark, again.mark, again.lease) == (MARK, None, second.lease)
    await chat.expire()
    third = await chat.store.claim(chat.user_id, chat.here)
    assert third
    assert third.mark is None


async def test_an_acceptance_that_claims_the_lease_gets_the_mark(chat: Chat) -> None:
    first = await chat.store.claim(chat.user_id, chat.here)
    assert first
    assert await chat.store.release(first.lease, MARK)
    accepted = await chat.say("hello")
    assert accepted.mark == MARK
    assert accepted.lease
    assert await chat.store.release(accepted.lease)
    assert (claim := await chat.store.claim(chat.user_id, chat.there))
    assert claim.mark is None


async def test_a_refused_release_stores_no_mark(chat: Chat) -> None:
    _, lease = await chat.running()
    assert not await chat.store.release(lease, MARK, unless_open=True)
    await chat.expire()
    assert (claim := await chat.store.claim(chat.user_id, chat.there))
    assert claim.mark is None
    assert await chat.store.release(lease, MARK)  # by one that was replaced: it changes nothing
    await chat.expire()
    assert (claim := await chat.store.claim(chat.user_id, chat.here))
    assert claim.mark is None


async def test_releasing_a_lease_that_was_taken_over_changes_nothing(chat: Chat) -> None:
    _, lease = await chat.running()
    await chat.expire()
    claim = await chat.store.claim(chat.user_id, chat.there)
    await chat.store.release(lease)

    assert claim
    assert await chat.store.renew(chat.there) == {chat.user_id: claim.lease.fence}


async def test_a_fenced_owner_changes_nothing(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.say("next")
    await chat.expire()
    assert await chat.store.claim(chat.user_id, chat.there)
    before = await chat.store.open_turns(chat.user_id)

    for attempt in (
        lambda: chat.store.start(lease),
        lambda: chat.store.set_run(lease, turn.id, 1, "run"),
        lambda: chat.store.finish(lease, ending(turn, COMPLETED, "late")),
    ):
        with pytest.raises(FencedError):
            await attempt()
    assert await chat.store.open_turns(chat.user_id) == before


async def test_the_right_fence_of_another_owner_is_refused(chat: Chat) -> None:
    _, lease = await chat.running()
    with pytest.raises(FencedError):
        await chat.store.start(Lease(chat.user_id, chat.there, lease.fence))


async def test_an_owner_with_an_expired_lease_continues_until_it_is_taken_over(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.expire()
    assert (await chat.end(lease, turn, COMPLETED, "in time")).status is COMPLETED


async def test_one_call_renews_all_leases_still_held(chat: Chat) -> None:
    other = Chat(chat.world, await chat.world.sign_up())
    lost = Chat(chat.world, await chat.world.sign_up())
    leases = [(await c.say("hello", owner=chat.here)).lease for c in (chat, other, lost)]
    for c in (chat, other, lost):
        await c.expire()
    assert await lost.store.claim(lost.user_id, chat.there)

    held = await chat.store.renew(chat.here)

    assert held == {lease.user_id: lease.fence for lease in leases[:2] if lease}
    assert await chat.store.claim(chat.user_id, chat.there) is None


async def test_unowned_work_lists_users_with_open_turns_and_no_owner(chat: Chat) -> None:
    store, world = chat.store, chat.world
    held, released, idle = [Chat(world, await world.sign_up()) for _ in range(3)]
    await held.running()
    _, lease = await released.running()
    await store.release(lease)
    await idle.ended("done", COMPLETED)
    await idle.expire()
    await chat.running()
    await chat.expire()

    found = await store.unowned_work(100_000)

    assert [user for user in found if user in {c.user_id for c in (chat, held, released, idle)}] == [
        released.user_id,
        chat.user_id,
    ]
    assert len(await store.unowned_work(1)) == 1


async def test_a_session_with_open_turns_is_not_released_with_unless_open(chat: Chat) -> None:
    turn, lease = await chat.running()
    assert not await chat.store.release(lease, unless_open=True)
    assert await chat.store.claim(chat.user_id, chat.there) is None

    waiting = await chat.say("stored by another", owner=chat.there)
    await chat.end(lease, turn, COMPLETED, "done")
    assert not await chat.store.release(lease, unless_open=True)

    await chat.store.request_cancel(chat.user_id, waiting.turn.id)
    assert await chat.store.release(lease, unless_open=True)
    assert await chat.store.claim(chat.user_id, chat.there)


async def test_a_fenced_owner_releases_nothing(chat: Chat) -> None:
    _, lease = await chat.running()
    await chat.expire()
    newer = await chat.store.claim(chat.user_id, chat.there)
    assert newer

    assert await chat.store.release(lease, unless_open=True)

    assert await chat.store.claim(chat.user_id, chat.here) is None


async def test_owned_work_includes_what_other_instances_stored(chat: Chat) -> None:
    turn, _ = await chat.running()
    assert await chat.store.owned_work(chat.here) == []

    waiting = await chat.say("later", owner=chat.there)
    assert await chat.store.owned_work(chat.here) == [OwnedWork(chat.user_id, frozenset({waiting.turn.id}), None)]

    await chat.store.request_cancel(chat.user_id, turn.id)
    assert await chat.store.owned_work(chat.here) == [OwnedWork(chat.user_id, frozenset({waiting.turn.id}), turn.id)]
    assert await chat.store.owned_work(chat.there) == []


async def test_a_takeover_gets_the_time_since_the_start_of_the_running_turn(chat: Chat) -> None:
    await chat.running()
    await chat.expire()

    claim = await chat.store.claim(chat.user_id, chat.there)

    assert claim
    assert claim.running
    assert claim.running_for >= 0
    other = await chat.store.claim((await chat.world.sign_up()), chat.there)
    assert other
    assert (other.running, other.running_for) == (None, 0)
