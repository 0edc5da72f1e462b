"""Accepting messages: stored once, queued in order; a refused one is not stored."""

import uuid
from functools import partial

import pytest

from server.ports import Lease
from server.protocol.codes import ErrorCode
from server.protocol.limits import Allowance
from server.protocol.shapes import AgentStatus, TurnStatus
from tests.contract.stores.chat import CANCELLED, COMPLETED, FAILED, QUEUED, RUNNING, UNSENT, Chat, ids, refused
from tests.contract.stores.worlds import MemoryWorld, World


async def test_first_message_of_an_unknown_user_makes_the_profile_and_starts(chat: Chat) -> None:
    accepted = await chat.say("hello")

    assert accepted.started
    assert not accepted.duplicate
    assert accepted.lease == Lease(chat.user_id, chat.here, 1)
    turn = accepted.turn
    assert (turn.status, turn.attempt, turn.number, turn.user_id) == (RUNNING, 1, 1, chat.user_id)
    assert (turn.user_message.content, turn.user_message.status, turn.user_message.position) == ("hello", "complete", 2)
    assert turn.started_at is not None
    assert turn.started_at >= turn.created_at
    assert (turn.message, turn.usage, turn.cost, turn.error, turn.queue_position) == (None,) * 5
    account = await chat.world.accounts.get(chat.user_id)
    assert account is not None
    assert account.agent_status is AgentStatus.PROVISIONING
    assert account.email == f"{chat.user_id[:8]}@example.com"


async def test_any_text_is_stored_unchanged(chat: Chat) -> None:
    text = 'Привет 🌍 \'quotes\' "double" \\ \n\t $$ -- ;drop table turns; {"json": null} \u2028'
    accepted = await chat.say(text, id="ключ/1")
    lease = accepted.lease
    assert lease
    turn = await chat.end(lease, accepted.turn, COMPLETED, text)

    assert turn.message
    assert (turn.user_message.content, turn.message.content, turn.client_message_id) == (text, text, "ключ/1")


async def test_nul_characters_are_refused_and_nothing_is_stored(world: World, chat: Chat) -> None:
    if isinstance(world, MemoryWorld):
        return  # memory can hold them; the edge refuses them before either store sees them
    with refused(ErrorCode.INVALID_REQUEST):
        await chat.say("a\x00b", id="nul")
    assert not (await chat.say("clean", id="nul")).duplicate


async def test_messages_wait_in_order_while_a_turn_runs(chat: Chat) -> None:
    await chat.running("1")
    second, third = await chat.say("2"), await chat.say("3")

    assert [(a.started, a.turn.status, a.turn.queue_position) for a in (second, third)] == [
        (False, QUEUED, 1),
        (False, QUEUED, 2),
    ]
    running, waiting = await chat.store.open_turns(chat.user_id)
    assert running
    assert (running.number, ids(waiting)) == (1, [second.turn.id, third.turn.id])


async def test_accepting_without_start_leaves_the_turn_waiting(chat: Chat) -> None:
    accepted = await chat.say("later", start=False)

    assert (accepted.started, accepted.turn.status, accepted.turn.queue_position) == (False, QUEUED, 1)
    assert accepted.lease


async def test_a_later_message_never_overtakes_a_waiting_one(chat: Chat) -> None:
    await chat.say("1", start=False)
    second = await chat.say("2", start=True)

    assert (second.started, second.turn.queue_position) == (False, 2)


@pytest.mark.parametrize("status", [RUNNING, QUEUED, COMPLETED, FAILED, CANCELLED, UNSENT])
async def test_the_same_id_attaches_to_the_same_turn_whatever_its_state(chat: Chat, status: TurnStatus) -> None:
    turn, lease = await chat.running("hello")
    if status is QUEUED:
        await chat.end(lease, turn, FAILED)
        await chat.again(turn, start=False)
    elif status is not RUNNING:
        await chat.end(lease, turn, status)

    again = await chat.say("hello", start=False)

    assert (again.duplicate, again.turn.id, again.turn.status) == (True, turn.id, status)
    assert (await chat.world.today(chat.user_id)).messages == (2 if status is COMPLETED else 1)


async def test_accepting_again_after_a_lost_answer_returns_the_same_turn(chat: Chat) -> None:
    first = await chat.say("hello")
    again = await chat.say("hello")

    assert (again.started, again.lease, again.turn) == (True, first.lease, first.turn)


async def test_the_same_id_with_other_content_is_a_conflict(chat: Chat) -> None:
    await chat.say("hello", id="one")
    with refused(ErrorCode.ID_CONFLICT):
        await chat.say("goodbye", id="one")


async def test_the_same_id_of_another_user_is_another_turn(chat: Chat) -> None:
    stranger = Chat(chat.world, await chat.world.sign_up())
    mine, theirs = await chat.say("hello", id="one"), await stranger.say("goodbye", id="one")

    assert mine.turn.id != theirs.turn.id
    assert not theirs.duplicate


@pytest.mark.parametrize("start", [True, False])
async def test_reject_refuses_while_anything_is_open_and_stores_nothing(chat: Chat, start: bool) -> None:
    first = await chat.say("1", start=start)
    with refused(ErrorCode.BUSY):
        await chat.say("2", "reject")

    running, waiting = await chat.store.open_turns(chat.user_id)
    assert ids(((running,) if running else ()) + waiting) == [first.turn.id]
    assert (await chat.world.today(chat.user_id)).messages == 1


async def test_reject_runs_when_nothing_is_open(chat: Chat) -> None:
    assert (await chat.say("1", "reject")).started


async def test_a_full_queue_refuses_and_leaves_the_id_free(chat: Chat) -> None:
    turn, lease = await chat.running("1")
    await chat.say("2", waiting=1)
    with refused(ErrorCode.QUEUE_FULL):
        await chat.say("3", waiting=1)

    await chat.end(lease, turn, COMPLETED)
    await chat.store.start(lease)
    assert not (await chat.say("3", waiting=1)).duplicate


async def test_interrupt_cancels_queued_turns_and_asks_the_running_one_to_stop(chat: Chat) -> None:
    turn, lease = await chat.running("1")
    waiting = [(await chat.say(text)).turn.id for text in ("2", "3")]

    accepted = await chat.say("stop!", "interrupt", waiting=2)

    assert ids(accepted.cancelled) == waiting
    assert {t.status for t in accepted.cancelled} == {CANCELLED}
    assert all(t.finished_at and t.cost is None for t in accepted.cancelled)
    assert accepted.interrupted
    assert (accepted.interrupted.id, accepted.interrupted.status) == (turn.id, RUNNING)
    assert accepted.interrupted.cancel_requested_at is not None
    assert (accepted.started, accepted.turn.queue_position) == (False, 1)
    await chat.end(lease, turn, CANCELLED, "so f")
    started = await chat.store.start(lease)
    assert started
    assert started.turn.id == accepted.turn.id
    assert [f.turn_id for f in started.forgotten] == [turn.id]


async def test_interrupt_of_an_idle_session_just_starts(chat: Chat) -> None:
    accepted = await chat.say("hello", "interrupt")
    assert (accepted.started, accepted.cancelled, accepted.interrupted) == (True, (), None)


@pytest.mark.parametrize("status", [AgentStatus.BLOCKED, AgentStatus.DELETING])
async def test_closed_accounts_get_no_turns(chat: Chat, status: AgentStatus) -> None:
    await chat.world.set_status(chat.user_id, status)
    with refused(ErrorCode.ACCOUNT_BLOCKED):
        await chat.say("hello")
    assert await chat.store.open_turns(chat.user_id) == (None, ())


async def test_deleted_users_get_no_turns(chat: Chat) -> None:
    turn, _ = await chat.running()
    await chat.world.delete_user(chat.user_id)

    assert await chat.store.turn(chat.user_id, turn.id) is None
    with refused(ErrorCode.UNAUTHORIZED):
        await chat.say("hello again")
    with refused(ErrorCode.UNAUTHORIZED):
        await chat.store.claim(chat.user_id, chat.here)


async def test_an_overloaded_server_refuses_new_messages_and_attaches_those_it_knows(chat: Chat) -> None:
    known = await chat.say("known")
    with refused(ErrorCode.OVERLOADED):
        await chat.say("new", overloaded=True)
    with refused(ErrorCode.OVERLOADED):
        await chat.say("urgent", "interrupt", overloaded=True)
    again = await chat.say("known", overloaded=True)
    assert (again.duplicate, again.turn.id) == (True, known.turn.id)
    assert not (await chat.say("new")).duplicate


async def test_an_overloaded_server_retries_nothing_but_answers_for_what_it_retries(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.end(lease, turn, FAILED, "")
    retry = partial(chat.store.retry, chat.user_id, turn.id, chat.here, start=False, allowance=Allowance())
    with refused(ErrorCode.OVERLOADED):
        await retry(overloaded=True)
    queued = await retry()
    assert (queued.turn.attempt, (await retry(overloaded=True)).duplicate) == (2, True)


async def test_closed_accounts_are_those_blocked_or_deleted(world: World, chat: Chat) -> None:
    await chat.say("hello")
    gone = str(uuid.uuid4())
    assert await chat.store.closed_accounts([chat.user_id, gone]) == [gone]
    await world.set_status(chat.user_id, AgentStatus.BLOCKED)
    assert set(await chat.store.closed_accounts([chat.user_id, gone])) == {chat.user_id, gone}
    assert await chat.store.closed_accounts([]) == []
