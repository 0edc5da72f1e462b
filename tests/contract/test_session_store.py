"""What every SessionStore does: the rules of turns, queues, leases and recovery, in memory and on a real Supabase."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from server.ports import Accepted, FencedError, Lease, NewTurn, SessionStore, TurnEnd
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, OnBusy, Turn, TurnError, TurnStatus, Usage
from tests.contract.stores import Day, MemoryWorld, SupabaseWorld, World

QUEUED, RUNNING, COMPLETED = TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.COMPLETED
FAILED, CANCELLED, UNSENT = TurnStatus.FAILED, TurnStatus.CANCELLED, TurnStatus.UNSENT


@pytest.fixture(params=["memory", "supabase"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world: World
    if request.param == "memory":
        world = MemoryWorld()
    else:
        world = await SupabaseWorld.open(request.getfixturevalue("supabase_env"))
    yield world
    await world.aclose()


@pytest.fixture
async def chat(world: World) -> "Chat":
    return Chat(world, await world.sign_up())


@dataclass
class Chat:
    """One user, served by owner `here` unless a test says otherwise."""

    world: World
    user_id: str
    here: str = ""
    there: str = ""

    def __post_init__(self) -> None:
        self.here, self.there = f"here-{uuid.uuid4()}", f"there-{uuid.uuid4()}"

    @property
    def store(self) -> SessionStore:
        return self.world.sessions

    async def say(
        self,
        text: str,
        on_busy: OnBusy = "enqueue",
        *,
        id: str | None = None,  # noqa: A002
        owner: str | None = None,
        start: bool = True,
        waiting: int = 8,
    ) -> Accepted:
        digest = hashlib.sha256(text.encode()).hexdigest()
        new = NewTurn(self.user_id, id or text, text, digest, on_busy)
        return await self.store.accept(new, owner or self.here, start=start, max_waiting=waiting)

    async def running(self, text: str = "hello") -> tuple[Turn, Lease]:
        accepted = await self.say(text)
        assert accepted.started
        assert accepted.lease
        return accepted.turn, accepted.lease

    async def again(self, turn: Turn, *, owner: str | None = None, start: bool = True, waiting: int = 8) -> Accepted:
        return await self.store.retry(self.user_id, turn.id, owner or self.here, start=start, max_waiting=waiting)

    async def end(self, lease: Lease, turn: Turn, status: TurnStatus, text: str = "", **more: object) -> Turn:
        return await self.store.finish(lease, ending(turn, status, text, **more))

    async def ended(self, text: str, status: TurnStatus, reply: str = "") -> Turn:
        turn, lease = await self.running(text)
        return await self.end(lease, turn, status, reply)


def ending(turn: Turn, status: TurnStatus, text: str = "", **more: object) -> TurnEnd:
    return TurnEnd(turn.id, turn.attempt, status, text, **more)  # type: ignore[arg-type]


def refused(code: ErrorCode) -> "pytest.RaisesExc[PlatformError]":
    return pytest.RaisesExc(PlatformError, check=lambda error: error.code is code)


def ids(turns: tuple[Turn, ...]) -> list[str]:
    return [turn.id for turn in turns]


# --- Accepting -------------------------------------------------------------------------------------------------------


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


async def test_any_text_survives_as_it_was_written(chat: Chat) -> None:
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


async def test_a_lost_answer_to_accept_is_given_again(chat: Chat) -> None:
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


async def test_interrupt_ends_those_that_wait_and_asks_the_running_one_to_stop(chat: Chat) -> None:
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


# --- Ownership -------------------------------------------------------------------------------------------------------


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


async def test_an_expired_lease_is_taken_with_the_next_fence_and_the_work_it_left(chat: Chat) -> None:
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


async def test_ones_own_expired_lease_gets_a_new_fence(chat: Chat) -> None:
    first = await chat.store.claim(chat.user_id, chat.here)
    await _expire(chat)
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


async def test_releasing_what_was_taken_over_changes_nothing(chat: Chat) -> None:
    _, lease = await chat.running()
    await _expire(chat)
    claim = await chat.store.claim(chat.user_id, chat.there)
    await chat.store.release(lease)

    assert claim
    assert await chat.store.renew(chat.there) == {chat.user_id: claim.lease.fence}


async def test_a_fenced_owner_changes_nothing(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.say("next")
    await _expire(chat)
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


async def test_an_owner_whose_lease_ran_out_goes_on_until_somebody_takes_it(chat: Chat) -> None:
    turn, lease = await chat.running()
    await _expire(chat)
    assert (await chat.end(lease, turn, COMPLETED, "in time")).status is COMPLETED


async def test_one_heartbeat_renews_all_sessions_still_held(chat: Chat) -> None:
    other = Chat(chat.world, await chat.world.sign_up())
    lost = Chat(chat.world, await chat.world.sign_up())
    leases = [(await c.say("hello", owner=chat.here)).lease for c in (chat, other, lost)]
    for c in (chat, other, lost):
        await _expire(c)
    assert await lost.store.claim(lost.user_id, chat.there)

    held = await chat.store.renew(chat.here)

    assert held == {lease.user_id: lease.fence for lease in leases[:2] if lease}
    assert await chat.store.claim(chat.user_id, chat.there) is None


async def test_unowned_work_names_users_whose_turns_nobody_runs(chat: Chat) -> None:
    store, world = chat.store, chat.world
    held, released, idle = [Chat(world, await world.sign_up()) for _ in range(3)]
    await held.running()
    _, lease = await released.running()
    await store.release(lease)
    await idle.ended("done", COMPLETED)
    await _expire(idle)
    await chat.running()
    await _expire(chat)

    found = await store.unowned_work(100_000)

    assert [user for user in found if user in {c.user_id for c in (chat, held, released, idle)}] == [
        released.user_id,
        chat.user_id,
    ]
    assert len(await store.unowned_work(1)) == 1


# --- Running ---------------------------------------------------------------------------------------------------------


async def test_start_takes_the_first_waiting_turn_and_none_when_idle(chat: Chat) -> None:
    turn, lease = await chat.running("1")
    second = await chat.say("2")
    await chat.end(lease, turn, COMPLETED, "ok")

    started = await chat.store.start(lease)

    assert started
    assert (started.turn.id, started.turn.status) == (second.turn.id, RUNNING)
    await chat.end(lease, second.turn, COMPLETED, "ok")
    assert await chat.store.start(lease) is None


async def test_a_lost_answer_to_start_is_given_again(chat: Chat) -> None:
    accepted = await chat.say("1", start=False)
    await chat.say("2", start=False)
    assert accepted.lease

    first, again = await chat.store.start(accepted.lease), await chat.store.start(accepted.lease)

    assert first == again
    assert first
    assert first.turn.id == accepted.turn.id


async def test_a_run_is_remembered_for_the_running_attempt_only(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.store.set_run(lease, turn.id, 2, "run-of-no-attempt")
    await chat.store.set_run(lease, turn.id, 1, "run-1")
    await chat.end(lease, turn, FAILED)
    await chat.store.set_run(lease, turn.id, 1, "run-late")

    stored = await chat.store.turn(chat.user_id, turn.id)
    assert stored
    assert stored.run_id == "run-1"


async def test_runs_of_earlier_attempts_are_still_known(chat: Chat) -> None:
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

    done = await chat.end(
        lease, turn, COMPLETED, "the reply", usage=usage, cost=Decimal("0.0000012345678901"), cost_status="estimated"
    )

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
    first = await chat.end(lease, turn, COMPLETED, "one", usage=Usage(total_tokens=5), cost=Decimal("0.5"))
    again = await chat.end(lease, turn, FAILED, "two", usage=Usage(total_tokens=9), cost=Decimal(9))

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


async def test_an_unsent_turn_costs_nothing_and_says_so(chat: Chat) -> None:
    turn, lease = await chat.running()
    error = TurnError(ErrorCode.BUDGET_EXCEEDED, "Used up.", retryable=True)
    done = await chat.end(lease, turn, UNSENT, "ignored", usage=Usage(total_tokens=5), cost=Decimal(1), error=error)

    assert (done.status, done.user_message.status, done.error) == (UNSENT, "unsent", error)
    assert (done.usage, done.cost, done.message, done.started_at) == (None, None, None, None)
    assert await chat.world.today(chat.user_id) == Day(1, 0, Decimal(0))


async def test_a_missing_price_leaves_the_cost_unknown(chat: Chat) -> None:
    turn, lease = await chat.running()
    done = await chat.end(lease, turn, COMPLETED, "ok", usage=Usage(total_tokens=5))

    assert done.cost is None
    assert done.message
    assert done.message.cost is None


async def test_many_tiny_costs_do_not_round_to_nothing(chat: Chat) -> None:
    for number in range(5):
        turn, lease = await chat.running(str(number))
        await chat.end(lease, turn, COMPLETED, "ok", cost=Decimal("0.0000004"))

    assert (await chat.world.today(chat.user_id)).cost == Decimal("0.0000020")


# --- Retrying --------------------------------------------------------------------------------------------------------


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


async def test_usage_and_cost_of_the_attempts_add_up(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.end(lease, turn, FAILED, "half", usage=Usage(2, 1, 3, model_calls=1), cost=Decimal("0.1"))
    second = (await chat.again(turn)).turn
    done = await chat.end(
        lease, second, COMPLETED, "whole", usage=Usage(20, 10, 30, model_calls=1), cost=Decimal("0.01")
    )

    assert done.usage == Usage(22, 11, 33, model_calls=2)
    assert done.cost == Decimal("0.11")
    assert done.message
    assert (done.message.content, done.message.tokens_used, done.message.cost) == ("whole", 33, Decimal("0.110000"))
    assert await chat.world.today(chat.user_id) == Day(2, 33, Decimal("0.11"))
    assert len(await chat.world.history(chat.user_id)) == 2


async def test_a_further_attempt_without_text_keeps_the_older_partial_reply(chat: Chat) -> None:
    turn, lease = await chat.running()
    await chat.end(lease, turn, FAILED, "half", cost=Decimal("0.1"))
    second = (await chat.again(turn)).turn
    done = await chat.end(lease, second, FAILED, "", cost=Decimal("0.2"))

    assert done.message
    assert (done.message.content, done.message.status, done.message.cost) == ("half", "partial", Decimal("0.300000"))


async def test_a_completed_turn_is_not_retried(chat: Chat) -> None:
    with refused(ErrorCode.NOT_RETRYABLE):
        await chat.again(await chat.ended("hello", COMPLETED))


async def test_retrying_what_is_open_already_is_a_duplicate(chat: Chat) -> None:
    turn, lease = await chat.running("1")
    waiting = (await chat.say("2")).turn

    running_again, waiting_again = await chat.again(turn), await chat.again(waiting)

    assert [(a.duplicate, a.turn.attempt) for a in (running_again, waiting_again)] == [(True, 1), (True, 1)]
    assert running_again.lease == lease
    assert (running_again.started, waiting_again.started) == (True, False)


@pytest.mark.parametrize("turn_id", [str(uuid.uuid4()), "nonsense", "' or 1=1 --"])
async def test_unknown_turns_are_not_found(chat: Chat, turn_id: str) -> None:
    assert await chat.store.turn(chat.user_id, turn_id) is None
    with refused(ErrorCode.NOT_FOUND):
        await chat.store.retry(chat.user_id, turn_id, chat.here, start=True, max_waiting=8)
    with refused(ErrorCode.NOT_FOUND):
        await chat.store.request_cancel(chat.user_id, turn_id)


async def test_another_users_turn_is_not_found(chat: Chat) -> None:
    turn = await chat.ended("hello", FAILED)
    stranger = await chat.world.sign_up()

    assert await chat.store.turn(stranger, turn.id) is None
    with refused(ErrorCode.NOT_FOUND):
        await chat.store.retry(stranger, turn.id, chat.here, start=True, max_waiting=8)
    with refused(ErrorCode.NOT_FOUND):
        await chat.store.request_cancel(stranger, turn.id)


async def test_a_retry_does_not_fit_into_a_full_queue(chat: Chat) -> None:
    failed = await chat.ended("0", FAILED)
    await chat.running("1")
    await chat.say("2")
    with refused(ErrorCode.QUEUE_FULL):
        await chat.again(failed, waiting=1)


async def test_a_retried_turn_goes_before_later_ones(chat: Chat) -> None:
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


# --- What the agent forgot -------------------------------------------------------------------------------------------


async def test_failed_and_cancelled_turns_are_told_again_in_order_until_carried(chat: Chat) -> None:
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
    await chat.end(lease, second, FAILED, carried=(failed.id,))

    assert [f.turn_id for f in (await chat.say("3")).forgotten] == [failed.id, second.id]


async def test_turns_cancelled_while_waiting_were_never_sent_and_need_no_reminder(chat: Chat) -> None:
    turn, lease = await chat.running("1")
    waiting = (await chat.say("2")).turn
    await chat.store.request_cancel(chat.user_id, waiting.id)
    await chat.end(lease, turn, COMPLETED)

    assert (await chat.say("3")).forgotten == ()


async def test_a_turn_that_failed_again_after_it_was_carried_is_told_again(chat: Chat) -> None:
    failed = await chat.ended("1", FAILED)
    turn, lease = await chat.running("2")
    await chat.end(lease, turn, COMPLETED, carried=(failed.id,))
    again = (await chat.again(failed)).turn
    await chat.end(lease, again, FAILED)

    assert [f.turn_id for f in (await chat.say("3")).forgotten] == [failed.id]


async def test_only_the_newest_ten_are_told_again(chat: Chat) -> None:
    turns = [await chat.ended(str(number), FAILED) for number in range(12)]
    assert [f.turn_id for f in (await chat.say("next")).forgotten] == [turn.id for turn in turns[2:]]


async def test_nobody_elses_turns_are_carried(chat: Chat) -> None:
    stranger = Chat(chat.world, await chat.world.sign_up())
    theirs = await stranger.ended("1", FAILED)
    turn, lease = await chat.running()
    await chat.end(lease, turn, COMPLETED, carried=(theirs.id,))

    assert [f.turn_id for f in (await stranger.say("2")).forgotten] == [theirs.id]


# --- Cancelling ------------------------------------------------------------------------------------------------------


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


async def test_cancelling_an_ended_turn_returns_it_as_it_is(chat: Chat) -> None:
    done = await chat.ended("hello", COMPLETED, "ok")
    assert await chat.store.request_cancel(chat.user_id, done.id) == done


async def test_a_cancel_survives_the_owner(chat: Chat) -> None:
    turn, _ = await chat.running()
    await chat.store.request_cancel(chat.user_id, turn.id)
    await _expire(chat)

    claim = await chat.store.claim(chat.user_id, chat.there)

    assert claim
    assert claim.running
    assert claim.running.cancel_requested_at is not None


# --- Tickets ---------------------------------------------------------------------------------------------------------


async def test_a_ticket_is_good_once(world: World) -> None:
    ticket, soon = uuid.uuid4().hex, datetime.now(UTC) + timedelta(seconds=30)

    shown = await asyncio.gather(*(world.sessions.redeem_ticket(ticket, soon) for _ in range(5)))

    assert sorted(shown) == [False] * 4 + [True]


async def test_old_tickets_are_forgotten_and_stay_refused(world: World) -> None:
    now = datetime.now(UTC)
    stale, old = uuid.uuid4().hex, now - timedelta(minutes=6)

    assert not await world.sessions.redeem_ticket(stale, old)
    assert await world.sessions.redeem_ticket(uuid.uuid4().hex, now)
    assert stale not in await world.tickets()


# --- Races -----------------------------------------------------------------------------------------------------------


async def test_one_id_sent_from_many_devices_at_once_is_one_turn(chat: Chat) -> None:
    accepted = await asyncio.gather(*(chat.say("hello", owner=f"{chat.here}-{n % 3}") for n in range(12)))

    assert len({a.turn.id for a in accepted}) == 1
    assert sum(not a.duplicate for a in accepted) == 1
    assert len({a.lease.owner for a in accepted if a.lease}) == 1
    assert (await chat.world.today(chat.user_id)).messages == 1


async def test_messages_sent_at_once_get_numbers_without_gaps_and_one_runs(chat: Chat) -> None:
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


async def test_many_owners_claim_at_once_and_one_gets_it(chat: Chat) -> None:
    await chat.say("hello", start=False)
    await _expire(chat)

    claims = await asyncio.gather(*(chat.store.claim(chat.user_id, f"{chat.there}-{n}") for n in range(8)))

    assert sum(claim is not None for claim in claims) == 1


async def test_finishing_races_with_itself_and_charges_once(chat: Chat) -> None:
    turn, lease = await chat.running()
    ends = [ending(turn, COMPLETED, str(n), usage=Usage(total_tokens=5), cost=Decimal(1)) for n in range(8)]

    stored = await asyncio.gather(*(chat.store.finish(lease, end) for end in ends))

    assert all(turn == stored[0] for turn in stored)
    assert await chat.world.today(chat.user_id) == Day(2, 5, Decimal(1))


async def test_a_takeover_racing_with_the_end_leaves_one_story(chat: Chat) -> None:
    turn, lease = await chat.running()
    await _expire(chat)

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


async def test_cancel_racing_with_start_is_either_never_run_or_marked(chat: Chat) -> None:
    accepted = await chat.say("hello", start=False)
    assert accepted.lease

    started, cancelled = await asyncio.gather(
        chat.store.start(accepted.lease), chat.store.request_cancel(chat.user_id, accepted.turn.id)
    )

    if started is None:
        assert cancelled.status is CANCELLED
    else:
        assert (cancelled.status, cancelled.cancel_requested_at is not None) == (RUNNING, True)


async def test_everything_at_once_never_deadlocks_and_keeps_one_turn_running(chat: Chat) -> None:
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


async def _expire(chat: Chat) -> None:
    await chat.world.let_leases_expire(chat.user_id)
