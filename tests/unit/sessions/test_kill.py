"""Invariant: kill -9 at any point loses nothing.

One conversation is played once to count the moments at which the process meets the outside world; then once more for
each of them, killing the process exactly there. A second process takes over when the dead one's lease has run out.
"""

import asyncio
from collections.abc import Awaitable, Callable

import orjson
import pytest

from server.protocol.shapes import Turn, TurnStatus
from tests.unit.sessions.world import SPOKEN, TOKENS, Process, World
from tests.virtual_time import VirtualTimeLoop, virtual_time

Scene = Callable[[World, Process, str], Awaitable[None]]
FIRST, SECOND = "first", "second"


async def _two_messages(world: World, process: Process, user: str) -> None:
    """Two messages, one waiting for the other, both ended."""
    device = await process.device(user)
    first = await process.send(user, FIRST, message_id="m1")
    second = await process.send(user, SECOND, message_id="m2")
    await device.until_end(first.turn.id)
    await device.until_end(second.turn.id)


async def _cancel_midway(world: World, process: Process, user: str) -> None:
    """One message, cancelled after its second word."""
    device = await process.device(user)
    first = await process.send(user, FIRST, message_id="m1")
    await device.until_text(first.turn.id, "One two ")
    await process.hub.cancel(user, first.turn.id)
    await device.until_end(first.turn.id)


async def _interrupt(world: World, process: Process, user: str) -> None:
    """One message, interrupted by another after its second word."""
    device = await process.device(user)
    first = await process.send(user, FIRST, message_id="m1")
    await device.until_text(first.turn.id, "One two ")
    second = await process.send(user, SECOND, message_id="m2", on_busy="interrupt")
    await device.until_end(first.turn.id)
    await device.until_end(second.turn.id)


async def _take_over_a_running_turn(world: World, process: Process, user: str) -> None:
    """One message whose first process dies in the middle of its reply."""
    gone = await world.process("gone")
    device = await gone.device(user)
    first = await gone.send(user, FIRST, message_id="m1")
    await device.until_text(first.turn.id, "One two ")
    gone.kill()
    await (await process.device(user)).until_end(first.turn.id)


async def _take_over_an_unsent_turn(world: World, process: Process, user: str) -> None:
    """One message whose first process dies before it is sent to the agent."""
    world.agents.delay = 1.0
    gone = await world.process("gone")
    first = await gone.send(user, FIRST, message_id="m1")
    gone.kill()
    world.agents.delay = 0.0
    await (await process.device(user)).until_end(first.turn.id)


def _moments(scene: Scene) -> int:
    """How often the process meets the outside world in the scene."""
    counted = 0

    async def play() -> None:
        nonlocal counted
        async with World() as world:
            process = await world.process("a")
            await scene(world, process, world.user())
            counted = process.boundary.crossings

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(play())
    return counted


async def _play_until_killed(world: World, scene: Scene, user: str, moment: int) -> None:
    process = await world.process("a", freeze_at=moment)
    acting = asyncio.ensure_future(scene(world, process, user))
    killed = asyncio.ensure_future(process.boundary.frozen.wait())
    await asyncio.wait({acting, killed}, return_when=asyncio.FIRST_COMPLETED)
    acting.cancel()
    killed.cancel()
    await asyncio.gather(acting, killed, return_exceptions=True)


async def _finish_with(world: World, user: str, *contents: str) -> list[Turn]:
    """What a client does after a reconnect: send everything again under the same ids, and read to the end.

    Returns the turns as the client was told they ended: at once for one that was over, else by the one terminal event.
    """
    process = await world.process("b")
    device = await process.device(user)
    accepted = [
        (await process.send(user, content, message_id=f"m{number}")).turn for number, content in enumerate(contents, 1)
    ]
    for turn in accepted:
        if not turn.status.ended:
            end = await device.until_end(turn.id)
            assert end["turn"] == orjson.loads(orjson.dumps(world.turn(turn.id).wire()))
    return [world.turn(turn.id) for turn in accepted]


@pytest.mark.parametrize("moment", range(1, _moments(_two_messages) + 1))
@virtual_time
async def test_kill_at_any_point_loses_nothing(moment: int) -> None:
    async with World() as world:
        user = world.user()
        await _play_until_killed(world, _two_messages, user, moment)
        turns = await _finish_with(world, user, FIRST, SECOND)
        assert [turn.status for turn in turns] == [TurnStatus.COMPLETED] * 2
        assert [world.reply_of(turn.id) for turn in turns] == [SPOKEN.text] * 2
        assert [world.sends(content) for content in (FIRST, SECOND)] == [1, 1]
        assert [turn.client_message_id for turn in world.turns(user)] == ["m1", "m2"]
        assert world.charged(user) == 2 * TOKENS


@pytest.mark.parametrize("moment", range(1, _moments(_two_messages) + 1))
@virtual_time
async def test_after_a_kill_what_was_accepted_ends_without_any_client(moment: int) -> None:
    async with World() as world:
        user = world.user()
        await _play_until_killed(world, _two_messages, user, moment)
        stored = [turn.id for turn in world.turns(user)]
        await world.process("b")
        await asyncio.sleep(60)
        assert [world.turn(turn_id).status for turn_id in stored] == [TurnStatus.COMPLETED] * len(stored)
        assert [world.reply_of(turn_id) for turn_id in stored] == [SPOKEN.text] * len(stored)
        assert world.charged(user) == TOKENS * len(stored)


@pytest.mark.parametrize("moment", range(1, _moments(_cancel_midway) + 1))
@virtual_time
async def test_kill_at_any_point_of_a_cancel_keeps_the_partial_text(moment: int) -> None:
    async with World() as world:
        user = world.user()
        await _play_until_killed(world, _cancel_midway, user, moment)
        [turn] = await _finish_with(world, user, FIRST)
        assert world.sends(FIRST) == 1
        if turn.cancel_requested_at is None:
            assert (turn.status, world.reply_of(turn.id)) == (TurnStatus.COMPLETED, SPOKEN.text)
        else:
            assert turn.status in (TurnStatus.CANCELLED, TurnStatus.COMPLETED)
            assert world.reply_of(turn.id).startswith("One two ")


@pytest.mark.parametrize("moment", range(1, _moments(_interrupt) + 1))
@virtual_time
async def test_kill_at_any_point_of_an_interrupt_answers_the_message_that_interrupted(moment: int) -> None:
    async with World() as world:
        user = world.user()
        await _play_until_killed(world, _interrupt, user, moment)
        first, second = await _finish_with(world, user, FIRST, SECOND)
        assert (second.status, world.reply_of(second.id)) == (TurnStatus.COMPLETED, SPOKEN.text)
        assert first.status in (TurnStatus.CANCELLED, TurnStatus.COMPLETED)
        assert world.reply_of(first.id).startswith("One two ")
        assert [world.sends(content) for content in (FIRST, SECOND)] == [1, 1]


@pytest.mark.parametrize(
    ("scene", "moment"),
    [
        (scene, moment)
        for scene in (_take_over_a_running_turn, _take_over_an_unsent_turn)
        for moment in range(1, _moments(scene) + 1)
    ],
)
@virtual_time
async def test_kill_at_any_point_of_a_recovery_loses_nothing(scene: Scene, moment: int) -> None:
    async with World() as world:
        user = world.user()
        await _play_until_killed(world, scene, user, moment)
        [turn] = await _finish_with(world, user, FIRST)
        assert (turn.status, world.reply_of(turn.id)) == (TurnStatus.COMPLETED, SPOKEN.text)
        assert (world.sends(FIRST), world.charged(user)) == (1, TOKENS)
