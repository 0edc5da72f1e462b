"""Stopping a turn: from anywhere, at any moment, keeping what was said."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnStatus
from tests.fakes.agent import Reply
from tests.unit.sessions.world import SPOKEN, TOKENS, World
from tests.virtual_time import virtual_time

TALKING = Reply(words=("One ", "two "), per_word=0.1, stuck=True)


@virtual_time
async def test_cancel_from_another_device_keeps_the_partial_text() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        sender, other = await process.device(user), await process.device(user)
        world.gateway.plan(TALKING)
        turn = (await process.send(user, "count")).turn
        await sender.until_text(turn.id, "One two ")
        sender.leave()
        cancelled = await process.cancel(user)
        assert (cancelled.turn.id, cancelled.duplicate) == (turn.id, False)
        end = await other.until_end(turn.id)
        assert end["type"] == "turn.cancelled"
        assert end["turn"]["message"] | {"content": "One two ", "status": "partial"} == end["turn"]["message"]
        assert other.streamed(turn.id) == "One two "


@virtual_time
async def test_the_text_freezes_at_the_cancel_even_if_the_agent_goes_on_talking() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(Reply(words=("One ", *["more "] * 100), per_word=0.1, deaf=True))
        turn = (await process.send(user, "count")).turn
        await device.until_text(turn.id, "One more ")
        shown = device.streamed(turn.id)
        await process.cancel(user)
        await device.until_end(turn.id)
        assert device.streamed(turn.id) == world.reply_of(turn.id) == shown


@virtual_time
async def test_a_cancelled_turn_ends_after_five_seconds_even_if_the_agent_never_answers() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(TALKING)
        turn = (await process.send(user, "count")).turn
        await device.until_text(turn.id, "One two ")
        world.gateway.down = True
        await process.cancel(user)
        async with asyncio.timeout(6):
            await device.until_end(turn.id)
        assert world.turn(turn.id).status is TurnStatus.CANCELLED


@virtual_time
async def test_a_waiting_turn_is_cancelled_at_once_and_at_no_charge() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        first, second = await process.send(user, "one"), await process.send(user, "two")
        await process.cancel(user, second.turn.id)
        assert (await device.until_end(second.turn.id))["type"] == "turn.cancelled"
        assert (first.turn.id, 1) not in device.ends
        await device.until_end(first.turn.id)
        await asyncio.sleep(10)
        assert world.sends("two") == 0
        assert world.charged(user) == TOKENS


@virtual_time
async def test_a_turn_cancelled_before_it_is_sent_is_never_sent() -> None:
    async with World() as world:
        world.agents.delay = 10.0
        process, user = await world.process(), world.user()
        device = await process.device(user)
        turn = (await process.send(user, "hello")).turn
        await process.cancel(user)
        end = await device.until_end(turn.id)
        await asyncio.sleep(60)
        assert end["type"] == "turn.cancelled"
        assert world.gateway.sent == []


@virtual_time
async def test_a_cancel_that_comes_while_the_turn_is_being_started_stops_it() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        first, second = await process.send(user, "one"), await process.send(user, "two")
        starting = asyncio.Event()
        release = asyncio.Event()

        async def hold(operation: str) -> None:
            if operation == "start":
                starting.set()
                await release.wait()

        async with AsyncExitStack() as undo:
            undo.callback(setattr, world.database, "after", None)
            world.database.after = hold
            await starting.wait()
            cancelling = asyncio.ensure_future(process.cancel(user, second.turn.id))
            await asyncio.sleep(0.1)
            release.set()
            await cancelling
        end = await device.until_end(second.turn.id)
        assert end["type"] == "turn.cancelled"
        assert device.ends[first.turn.id, 1]["type"] == "turn.completed"


@virtual_time
async def test_a_cancel_that_comes_too_late_finds_the_turn_completed_and_whole() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        turn = (await process.send(user, "count")).turn
        await device.until_text(turn.id, SPOKEN.text)
        await process.cancel(user, turn.id)
        await device.until_end(turn.id)
        assert device.text(turn.id) == SPOKEN.text
        late = await process.cancel(user, turn.id)
        assert (late.duplicate, late.turn.status) == (True, world.turn(turn.id).status)


@virtual_time
async def test_there_is_nothing_to_cancel_when_nothing_is_open() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        with pytest.raises(PlatformError) as refusal:
            await process.cancel(user)
        assert refusal.value.code is ErrorCode.NOT_FOUND


@virtual_time
async def test_a_user_cannot_cancel_another_users_turn() -> None:
    async with World() as world:
        process, user, other = await world.process(), world.user(), world.user()
        device = await process.device(user)
        turn = (await process.send(user, "hello")).turn
        with pytest.raises(PlatformError) as refusal:
            await process.cancel(other, turn.id)
        assert refusal.value.code is ErrorCode.NOT_FOUND
        assert (await device.until_end(turn.id))["type"] == "turn.completed"


@virtual_time
async def test_a_cancel_of_an_attempt_does_not_stop_the_next_one() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(TALKING)
        turn = (await process.send(user, "hello")).turn
        await device.until_text(turn.id, "One two ")
        await process.cancel(user)
        await device.until_end(turn.id)
        await process.retry(user, turn.id)
        assert (await device.until_end(turn.id, 2))["type"] == "turn.completed"


@virtual_time
async def test_disconnecting_every_device_cancels_nothing() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        phone, laptop = await process.device(user), await process.device(user)
        turn = (await process.send(user, "count")).turn
        await phone.until_text(turn.id, "One ")
        phone.leave()
        laptop.leave()
        await asyncio.sleep(60)
        assert (world.turn(turn.id).status, world.reply_of(turn.id)) == (TurnStatus.COMPLETED, SPOKEN.text)
        assert world.gateway.cancels == []


@virtual_time
async def test_a_cancel_while_a_lost_run_is_searched_prevents_a_second_send() -> None:
    async with World() as world:
        world.agents.delay = 5.0
        first, user = await world.process("a"), world.user()
        turn = (await first.send(user, "hello")).turn
        await asyncio.sleep(1)
        first.kill()
        world.agents.delay = 0.0
        second = await world.process("b")
        device = await second.device(user)
        await asyncio.sleep(20)  # its lease took 12 s, and the second look comes 10 s after the first
        assert world.owner(user) == "b"
        await second.cancel(user)
        assert (await device.until_end(turn.id))["type"] == "turn.cancelled"
        assert world.gateway.sent == []


@virtual_time
async def test_a_cancel_that_crosses_the_end_of_its_turn_does_not_end_it_twice() -> None:
    """The row says completed; that answer is still on its way to the worker."""
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        finished = asyncio.Event()

        async def slow(operation: str) -> None:
            if operation == "finish":
                finished.set()
                await asyncio.sleep(1)

        world.database.after = slow
        turn = (await process.send(user, "count")).turn
        await finished.wait()
        cancelled = await process.cancel(user, turn.id)
        assert (cancelled.duplicate, cancelled.turn.status) == (True, TurnStatus.COMPLETED)
        await device.until_end(turn.id)
        await asyncio.sleep(5)
        assert [event["type"] for event in device.events].count("turn.completed") == 1
