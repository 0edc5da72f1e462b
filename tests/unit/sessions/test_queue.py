"""What waits: order, limits, what a busy agent does to a message, repeated ids and retries."""

import asyncio

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.protocol.shapes import TurnStatus
from tests.fakes.agent import MODEL_FAILED, Reply
from tests.unit.sessions.world import SPOKEN, TOKENS, World
from tests.virtual_time import virtual_time

STUCK = Reply(words=("Well, ",), stuck=True)


@virtual_time
async def test_one_running_turn_per_user_however_many_devices_send_at_once() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        accepted = await asyncio.gather(*(process.send(user, f"message {number}") for number in range(6)))
        for one in accepted:
            await device.until_end(one.turn.id)
        bounds = [event["type"] for event in device.events if event["type"] in ("turn.started", "turn.completed")]
        assert bounds == ["turn.started", "turn.completed"] * 6
        assert len(world.gateway.sent) == 6


@virtual_time
async def test_waiting_turns_run_in_the_order_they_were_accepted() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        sent = [await process.send(user, f"message {number}") for number in range(4)]
        assert [one.turn.queue_position for one in sent] == [None, 1, 2, 3]
        await device.until_end(sent[-1].turn.id)
        assert [run.messages[-1].content for run in world.gateway.sent] == [f"message {n}" for n in range(4)]
        queued = [event["turn_id"] for event in device.events if event["type"] == "turn.queued"]
        assert queued == [one.turn.id for one in sent[1:]]


@virtual_time
async def test_users_do_not_wait_for_one_another() -> None:
    async with World() as world:
        process, ann, ben = await world.process(), world.user(), world.user()
        world.gateway.plan(STUCK)
        await process.send(ann, "hello")
        device = await process.device(ben)
        await device.until_end((await process.send(ben, "hello")).turn.id)


@virtual_time
async def test_a_full_queue_refuses_and_stores_nothing() -> None:
    async with World(limits=Limits(waiting_turns_per_user=2)) as world:
        process, user = await world.process(), world.user()
        world.gateway.plan(STUCK)
        for number in range(3):
            await process.send(user, "wait", message_id=f"m{number}")
        with pytest.raises(PlatformError) as refusal:
            await process.send(user, "too much", message_id="m3")
        assert refusal.value.code is ErrorCode.QUEUE_FULL
        assert [turn.client_message_id for turn in world.turns(user)] == ["m0", "m1", "m2"]


@virtual_time
async def test_reject_refuses_while_a_turn_runs_and_leaves_the_id_free() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        running = await process.send(user, "one")
        with pytest.raises(PlatformError) as refusal:
            await process.send(user, "two", message_id="again", on_busy="reject")
        assert refusal.value.code is ErrorCode.BUSY
        await device.until_end(running.turn.id)
        accepted = await process.send(user, "two", message_id="again", on_busy="reject")
        assert not accepted.duplicate
        await device.until_end(accepted.turn.id)


@virtual_time
async def test_interrupt_cancels_the_running_and_the_waiting_turns_then_runs() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(STUCK)
        running, waiting = await process.send(user, "one"), await process.send(user, "two")
        await device.until_text(running.turn.id, "Well, ")
        accepted = await process.send(user, "three", on_busy="interrupt")
        await device.until_end(accepted.turn.id)
        ends = [(event["turn_id"], event["type"]) for event in device.ends.values()]
        assert ends == [
            (waiting.turn.id, "turn.cancelled"),
            (running.turn.id, "turn.cancelled"),
            (accepted.turn.id, "turn.completed"),
        ]
        assert world.reply_of(running.turn.id) == "Well, "
        assert world.sends("two") == 0
        assert world.charged(user) == TOKENS


@virtual_time
async def test_the_same_id_attaches_to_the_same_turn_in_every_state() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        first = await process.send(user, "one", message_id="m1")
        second = await process.send(user, "two", message_id="m2")
        running = await process.send(user, "one", message_id="m1")
        waiting = await process.send(user, "two", message_id="m2")
        assert (running.duplicate, running.turn.id, running.turn.status) == (True, first.turn.id, TurnStatus.RUNNING)
        assert (waiting.duplicate, waiting.turn.id, waiting.turn.queue_position) == (True, second.turn.id, 1)
        await device.until_end(second.turn.id)
        ended = await process.send(user, "one", message_id="m1")
        assert (ended.duplicate, ended.turn.status) == (True, TurnStatus.COMPLETED)
        assert len(device.ends) == 2
        assert len(world.gateway.sent) == 2


@virtual_time
async def test_an_accepted_id_yields_exactly_one_turn_and_one_charge_when_sent_by_many_at_once() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        accepted = await asyncio.gather(*(process.send(user, "hello", message_id="same") for _ in range(10)))
        assert len({one.turn.id for one in accepted}) == 1
        assert sum(not one.duplicate for one in accepted) == 1
        await device.until_end(accepted[0].turn.id)
        assert world.sends("hello") == 1
        assert world.charged(user) == TOKENS


@virtual_time
async def test_the_same_id_with_other_content_is_a_conflict() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        await process.send(user, "one", message_id="m1")
        with pytest.raises(PlatformError) as refusal:
            await process.send(user, "other", message_id="m1")
        assert refusal.value.code is ErrorCode.ID_CONFLICT
        assert len(world.turns(user)) == 1


@virtual_time
async def test_a_retry_is_the_same_turn_one_attempt_later_with_an_end_of_its_own() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(Reply(words=("Oh ",), error=MODEL_FAILED))
        turn = (await process.send(user, "hello")).turn
        assert (await device.until_end(turn.id))["type"] == "turn.failed"
        again = await process.retry(user, turn.id)
        assert (again.turn.id, again.turn.attempt, again.duplicate) == (turn.id, 2, False)
        assert (await device.until_end(turn.id, 2))["type"] == "turn.completed"
        assert device.text(turn.id, 2) == SPOKEN.text
        assert [event["type"] for event in device.ends.values()] == ["turn.failed", "turn.completed"]
        assert len(world.turns(user)) == 1


@virtual_time
async def test_a_retry_sent_twice_attaches_to_the_attempt_under_way() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(Reply(words=(), error=MODEL_FAILED))
        turn = (await process.send(user, "hello")).turn
        await device.until_end(turn.id)
        once, twice = await process.retry(user, turn.id), await process.retry(user, turn.id)
        assert (once.duplicate, twice.duplicate) == (False, True)
        await device.until_end(turn.id, 2)
        assert world.sends("hello") == 2


@virtual_time
async def test_a_completed_turn_and_another_users_turn_cannot_be_retried() -> None:
    async with World() as world:
        process, user, other = await world.process(), world.user(), world.user()
        device = await process.device(user)
        turn = (await process.send(user, "hello")).turn
        await device.until_end(turn.id)
        for who, code in ((user, ErrorCode.NOT_RETRYABLE), (other, ErrorCode.NOT_FOUND)):
            with pytest.raises(PlatformError) as refusal:
                await process.retry(who, turn.id)
            assert refusal.value.code is code
