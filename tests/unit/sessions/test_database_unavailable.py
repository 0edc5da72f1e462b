"""The database cannot be reached, or its answer is lost: nothing is lost, and nothing happens twice."""

import asyncio
import gc
from contextlib import suppress

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnStatus
from tests.fakes.agent import Reply
from tests.fakes.database import Hook
from tests.unit.sessions.world import SPOKEN, TOKENS, World
from tests.virtual_time import virtual_time


def _away(*operations: str, times: int = 10**9) -> Hook:
    """Fail the named operations (all of them where none is named) so many times."""
    left = times

    async def fail(operation: str) -> None:
        nonlocal left
        if left > 0 and (not operations or operation in operations):
            left -= 1
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    return fail


@virtual_time
async def test_the_end_of_a_turn_waits_for_the_database_and_nothing_is_lost() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        turn = (await process.send(user, "count")).turn
        await device.until_text(turn.id, SPOKEN.words[0])
        world.database.before = _away()
        with pytest.raises(PlatformError) as refusal:
            await process.send(user, "another")
        assert refusal.value.code is ErrorCode.SUPABASE_UNAVAILABLE
        await asyncio.sleep(120)
        assert device.ends == {}
        world.database.before = None
        end = await device.until_end(turn.id)
        assert end["turn"]["message"]["content"] == SPOKEN.text
        assert [turn.client_message_id for turn in world.turns(user)] == ["a-1"]
        assert (device.closed, world.charged(user)) == (None, TOKENS)


@virtual_time
async def test_after_an_outage_the_session_goes_on() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.database.before = _away()
        await asyncio.sleep(60)
        world.database.before = None
        turn = (await process.send(user, "count")).turn
        assert (await device.until_end(turn.id))["type"] == "turn.completed"


@pytest.mark.parametrize("operation", ["claim", "accept", "start", "set_run", "finish", "open_turns", "renew"])
@pytest.mark.parametrize("lost", ["question", "answer"])
@virtual_time
async def test_one_failure_of_any_operation_changes_nothing_for_the_user(operation: str, lost: str) -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        hook = _away(operation, times=1)
        world.database.before, world.database.after = (hook, None) if lost == "question" else (None, hook)
        device = None
        while device is None:
            with suppress(PlatformError):
                device = await process.device(user)
        for number in (1, 2):
            turn = None
            while turn is None:  # as a client: the same id again until it is acknowledged
                with suppress(PlatformError):
                    turn = (await process.send(user, f"message {number}", message_id=f"m{number}")).turn
            await device.until(lambda turn_id=turn.id: world.turn(turn_id).status.ended)  # type: ignore[misc]
        await asyncio.sleep(1)
        assert [turn.status for turn in world.turns(user)] == [TurnStatus.COMPLETED] * 2
        assert [world.sends(f"message {number}") for number in (1, 2)] == [1, 1]
        assert len(device.ends) == 2
        assert world.charged(user) == 2 * TOKENS


@virtual_time
async def test_a_message_whose_acknowledgement_was_lost_is_answered_even_if_it_is_never_sent_again() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        await device.until_end((await process.send(user, "first")).turn.id)
        world.database.after = _away("accept", times=1)
        with pytest.raises(PlatformError):
            await process.send(user, "hello")
        turn = world.turns(user)[-1]
        async with asyncio.timeout(60):
            assert (await device.until_end(turn.id))["type"] == "turn.completed"


@virtual_time
async def test_a_cancel_whose_answer_was_lost_still_publishes_the_end() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        first, second = await process.send(user, "one"), await process.send(user, "two")
        world.database.after = _away("request_cancel", times=1)
        with pytest.raises(PlatformError):
            await process.cancel(user, second.turn.id)
        await device.until_end(first.turn.id)
        assert (await device.until_end(second.turn.id))["type"] == "turn.cancelled"


@virtual_time
async def test_a_message_accepted_while_the_session_is_being_claimed_is_not_forgotten() -> None:
    """The claim's answer is older than the message and arrives after it."""
    async with World() as world:
        first, user = await world.process("a"), world.user()
        await first.send(user, "one")
        await first.stop()
        second = await world.process("b")
        claiming = asyncio.Event()

        async def slow(operation: str) -> None:
            if operation == "claim":
                claiming.set()
                await asyncio.sleep(2)

        world.database.after = slow
        device = await second.device(user)
        await claiming.wait()
        turn = (await second.send(user, "two")).turn
        assert (await device.until_end(turn.id))["type"] == "turn.completed"


@virtual_time
async def test_a_duplicate_of_an_unknown_turn_does_not_disturb_the_running_one() -> None:
    async with World() as world:
        first, user = await world.process("a"), world.user()
        device = await first.device(user)
        running = (await first.send(user, "one")).turn
        await (await world.process("b")).send(user, "two", message_id="m2")
        duplicate = await first.send(user, "two", message_id="m2")
        assert duplicate.duplicate
        assert (await device.until_end(running.id))["type"] == "turn.completed"
        assert (await device.until_end(duplicate.turn.id))["type"] == "turn.completed"
        assert device.closed is None


@virtual_time
async def test_a_lease_that_ran_out_during_an_outage_is_lost_to_the_next_owner() -> None:
    async with World() as world:
        first, user = await world.process("a"), world.user()
        device = await first.device(user)
        world.gateway.plan(Reply(stuck=True))
        await device.until_text((await first.send(user, "one")).turn.id, "Hello there.")
        first.boundary.freeze()
        await asyncio.sleep(13)
        second = await world.process("b")
        turn = (await second.send(user, "two")).turn
        first.boundary.thaw()
        await device.until(lambda: device.closed)
        other = await second.device(user)
        await second.cancel(user)
        assert (await other.until_end(turn.id))["type"] == "turn.completed"


@virtual_time
async def test_an_interrupt_whose_answer_was_lost_still_stops_what_runs() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(Reply(words=("on ", "and ", "on"), stuck=True))
        running = (await process.send(user, "go on")).turn
        await device.until_text(running.id, "on and on")
        world.database.after = _away("accept", times=1)
        urgent = None
        while urgent is None:
            with suppress(PlatformError):
                urgent = (await process.send(user, "stop that", message_id="urgent", on_busy="interrupt")).turn
        assert (await device.until_end(running.id))["type"] == "turn.cancelled"
        assert (await device.until_end(urgent.id))["type"] == "turn.completed"
        assert asyncio.get_running_loop().time() < 1_000 + 60


@pytest.mark.parametrize("late", ["finish", "open_turns"])
@virtual_time
async def test_an_end_is_published_once_though_the_rows_are_read_while_it_is_stored(late: str) -> None:
    """A repeated message that is not known here makes the session look, just as its running turn ends."""
    async with World() as world:
        first, user = await world.process("a"), world.user()
        device = await first.device(user)
        running = (await first.send(user, "one")).turn
        await (await world.process("b")).send(user, "two", message_id="m2")
        ended = asyncio.Event()

        async def slow(operation: str) -> None:
            if operation == "finish":
                ended.set()
            if operation == late:
                await asyncio.sleep(0.5)

        world.database.after = slow
        if late == "finish":
            await ended.wait()
        else:
            await device.until_text(running.id, SPOKEN.text)
        duplicate = await first.send(user, "two", message_id="m2")
        await device.until_end(duplicate.turn.id)
        ends = [event["turn_id"] for event in device.events if event["type"] == "turn.completed"]
        starts = [event["turn_id"] for event in device.events if event["type"] == "turn.started"]
        assert ends == starts == [running.id, duplicate.turn.id]


@virtual_time
async def test_what_happens_before_the_lease_is_released_is_published() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        await device.until_end((await process.send(user, "one")).turn.id)
        world.database.before = _away("release")
        await device.until_end((await process.send(user, "two")).turn.id)
        await asyncio.sleep(0.1)
        turn = (await process.send(user, "three")).turn
        async with asyncio.timeout(60):
            assert (await device.until_end(turn.id))["type"] == "turn.completed"
        world.database.before = None
        await asyncio.sleep(10)
        assert world.owner(user) is None


@virtual_time
async def test_a_session_that_cannot_be_opened_after_its_client_left_logs_no_error() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with World() as world:
        process, user = await world.process(), world.user()

        async def fail_slowly(operation: str) -> None:
            if operation == "open_turns":
                await asyncio.sleep(5)
                raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

        world.database.before = fail_slowly
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.device(user), 1)
        await asyncio.sleep(10)
        gc.collect()
        assert complaints == []
