"""How many turns run at once, who is next, and when to say no."""

import asyncio

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.sessions.admission import Admission
from tests.fakes.agent import Reply
from tests.unit.sessions.world import World
from tests.virtual_time import virtual_time

TEN_SECONDS = Reply(words=("done",), first_token=10.0)


@virtual_time
async def test_no_more_turns_run_at_once_than_the_limit() -> None:
    async with World(limits=Limits(running_turns=3), reply=TEN_SECONDS) as world:
        process = await world.process()
        for _ in range(10):
            await process.send(world.user(), "hello")
        most = 0
        for _ in range(50):
            await asyncio.sleep(1)
            most = max(most, sum(run.status == "running" for run in world.gateway.sent))
        assert (most, len(world.gateway.sent)) == (3, 10)


@virtual_time
async def test_a_user_with_many_messages_does_not_hold_up_the_others() -> None:
    async with World(limits=Limits(running_turns=1), reply=TEN_SECONDS) as world:
        process, eager, modest = await world.process(), world.user(), world.user()
        for number in range(5):
            await process.send(eager, f"eager {number}")
        await process.send(modest, "modest")
        await asyncio.sleep(120)
        order = [run.messages[-1].content for run in world.gateway.sent]
        assert order.index("modest") <= 2


@virtual_time
async def test_users_get_slots_in_the_order_of_their_turns() -> None:
    async with World(limits=Limits(running_turns=1), reply=TEN_SECONDS) as world:
        process = await world.process()
        for number in range(5):
            await process.send(world.user(), f"message {number}")
        await asyncio.sleep(120)
        assert [run.messages[-1].content for run in world.gateway.sent] == [f"message {n}" for n in range(5)]


@virtual_time
async def test_an_overloaded_process_refuses_and_stores_nothing() -> None:
    async with World(limits=Limits(running_turns=1, expected_wait_seconds=8), reply=TEN_SECONDS) as world:
        process, late = await world.process(), world.user()
        for _ in range(2):
            await process.send(world.user(), "hello")
        with pytest.raises(PlatformError) as refusal:
            await process.send(late, "hello")
        assert (refusal.value.code, refusal.value.retryable) == (ErrorCode.OVERLOADED, True)
        assert refusal.value.retry_after_seconds is not None
        assert world.turns(late) == []
        await asyncio.sleep(60)
        await process.send(late, "hello")


@virtual_time
async def test_a_slot_is_released_however_a_turn_ends() -> None:
    async with World(limits=Limits(running_turns=1)) as world:
        process = await world.process()
        ends = (
            Reply(),
            Reply(error=None, refusal=PlatformError(ErrorCode.LETTA_UNAVAILABLE)),
            Reply(refusal=RuntimeError("nobody thought of this")),
            Reply(words=("Well, ",), stuck=True),
        )
        for reply in ends:
            user = world.user()
            device = await process.device(user)
            world.gateway.plan(reply)
            turn = (await process.send(user, "hello")).turn
            if reply.stuck:
                await device.until_text(turn.id, "Well, ")
                await process.cancel(user)
            await device.until_end(turn.id)
        assert (process.hub.admission.running, process.hub.admission.waiting) == (0, 0)


@virtual_time
async def test_a_slot_is_released_when_the_session_is_lost() -> None:
    async with World(reply=TEN_SECONDS) as world:
        process, user = await world.process(), world.user()
        await process.send(user, "hello")
        assert process.hub.admission.running == 1
        (await process.hub.session(user)).lost()
        await asyncio.sleep(0.1)
        assert process.hub.admission.running == 0


@virtual_time
async def test_a_cancelled_wait_leaves_the_queue_and_loses_no_slot() -> None:
    gate = Admission(1, 60.0)
    await gate.acquire()
    waiting = [asyncio.ensure_future(gate.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    assert (gate.running, gate.waiting) == (1, 3)
    waiting[0].cancel()
    await asyncio.sleep(0)
    gate.release()
    waiting[1].cancel()  # just as the place is handed over
    await asyncio.wait({waiting[2]})
    assert (gate.running, gate.waiting) == (1, 0)
    gate.release()
    assert gate.running == 0


def test_the_expected_wait_follows_the_duration_of_turns() -> None:
    gate = Admission(2, 60.0)
    assert gate.expected_wait == 0
    assert gate.try_acquire()
    assert gate.try_acquire()
    assert not gate.try_acquire()
    first_guess = gate.expected_wait
    gate.release(100.0)
    assert gate.try_acquire()
    assert gate.expected_wait > first_guess
