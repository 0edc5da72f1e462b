"""Steps in the life of a turn: stored at its end, shown to those who join, kept when an owner dies."""

import asyncio

from server.protocol.shapes import Json, TurnStatus
from tests.fakes.agent import MODEL_FAILED, Reply, Tool
from tests.unit.sessions.device import Device
from tests.unit.sessions.world import Process, World
from tests.virtual_time import virtual_time

THINKING = Reply(reasoning=("Hm, ", "let me see."), tools=(Tool("search", '{"q": 1}'),), per_word=1.0)


def _steps(world: World, turn_id: str) -> list[str]:
    return [_shown(step) for step in world.database.turns[turn_id].steps]


def _shown(step: Json) -> str:
    return str(step.get("text", step.get("arguments", step.get("status"))))


def _joined_steps(device: Device) -> list[str]:
    assert device.attachment is not None
    return [_shown(step) for step in device.attachment.snapshot.steps]


async def _begun(process: Process, user: str, device: Device, event: str) -> str:
    """A turn of which this event was seen, after a moment in which replicas become level."""
    turn = (await process.send(user, "talk")).turn
    await device.until(lambda: event in device.types)
    await asyncio.sleep(0.1)
    return turn.id


@virtual_time
async def test_a_completed_turn_keeps_its_steps_in_order() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(THINKING)
        turn = (await process.send(user, "talk")).turn
        await device.until_end(turn.id)
        assert _steps(world, turn.id) == ["Hm, let me see.", '{"q": 1}', "success"]


@virtual_time
async def test_a_device_that_joins_during_a_turn_gets_the_steps_so_far_on_every_instance() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device, processes = await process.device(user), [process]
        if world.broker is not None:
            processes.append(await world.process("following since before"))
            await processes[-1].device(user)
        world.gateway.plan(THINKING)
        turn_id = await _begun(process, user, device, "tool.returned")
        if world.broker is not None:
            processes.append(await world.process("new"))
        for one in processes:
            assert _joined_steps(await one.device(user)) == ["Hm, let me see.", '{"q": 1}', "success"]
        await device.until_end(turn_id)
        assert _joined_steps(await process.device(user)) == []


@virtual_time
async def test_a_turn_that_was_cancelled_before_its_first_word_keeps_its_steps() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(THINKING)
        turn_id = await _begun(process, user, device, "reasoning.delta")
        await process.cancel(user)
        end = await device.until_end(turn_id)
        assert (end["turn"]["message"]["content"], end["turn"]["message"]["status"]) == ("", "partial")
        assert _steps(world, turn_id) == ["Hm, "]


@virtual_time
async def test_a_retry_replaces_the_steps_and_shows_none_of_the_attempt_before() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(
            Reply(words=("Oh",), reasoning=("first",), error=MODEL_FAILED), Reply(reasoning=("second",), per_word=1.0)
        )
        turn = (await process.send(user, "talk")).turn
        await device.until_end(turn.id)
        assert _steps(world, turn.id) == ["first"]
        await process.retry(user, turn.id)
        assert _joined_steps(await process.device(user)) == []
        await device.until_end(turn.id, 2)
        assert _steps(world, turn.id) == ["second"]


@virtual_time
async def test_an_attempt_without_text_leaves_an_earlier_partial_reply_together_with_its_steps() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(
            Reply(words=("Oh",), reasoning=("first",), error=MODEL_FAILED),
            Reply(words=(), reasoning=("second",), error=MODEL_FAILED),
        )
        turn = (await process.send(user, "talk")).turn
        await device.until_end(turn.id)
        await process.retry(user, turn.id)
        await device.until_end(turn.id, 2)
        assert (world.reply_of(turn.id), _steps(world, turn.id)) == ("Oh", ["first"])


@virtual_time
async def test_the_next_owner_stores_the_steps_of_a_run_whose_owner_died() -> None:
    async with World() as world:
        gone, user = await world.process("a"), world.user()
        device = await gone.device(user)
        world.gateway.plan(THINKING)
        turn_id = await _begun(gone, user, device, "reasoning.delta")
        gone.kill()
        await (await (await world.process("b")).device(user)).until_end(turn_id)
        assert world.turn(turn_id).status is TurnStatus.COMPLETED
        assert _steps(world, turn_id) == ["Hm, let me see.", '{"q": 1}', "success"]


@virtual_time
async def test_steps_that_an_owner_published_before_it_died_outlive_a_run_that_is_lost() -> None:
    """Only a replica has them then: the agent's service records nothing of a run that it lost."""
    async with World() as world:
        gone, user = await world.process("a"), world.user()
        device = await gone.device(user)
        world.gateway.plan(THINKING)
        turn_id = await _begun(gone, user, device, "tool.returned")
        gone.kill()
        world.gateway.forget(world.gateway.sent[0].id)
        joined = await (await world.process("b")).device(user)
        await joined.until_end(turn_id)
        assert world.turn(turn_id).status is TurnStatus.FAILED
        seen = ["Hm, let me see.", '{"q": 1}', "success"] if world.broker is not None else []
        assert _steps(world, turn_id) == seen
