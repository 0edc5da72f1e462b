"""Several processes around a relay that forgets, fills up and dies: every device sees what happens all the same."""

import asyncio
from collections.abc import Iterator

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.agent import Reply
from tests.unit.sessions.world import SHARED, World
from tests.virtual_time import virtual_time

LONG = Reply(words=("word ",) * 300, per_word=0.1)


@pytest.fixture(autouse=True)
def placement() -> Iterator[None]:
    """Only shared logs have a relay."""
    token = SHARED.set(True)
    yield
    SHARED.reset(token)


@virtual_time
async def test_where_the_log_was_lost_every_process_learns_from_the_rows_what_is_open() -> None:
    async with World(reply=LONG) as world:
        assert world.broker is not None
        gone, user = await world.process("a"), world.user()
        turn = (await gone.send(user, "talk")).turn
        gone.kill()
        world.broker.forget(user)
        devices = [await (await world.process(name)).device(user) for name in ("b", "c")]
        for device in devices:
            assert device.attachment is not None
            assert device.attachment.snapshot.running is not None
        for device in devices:
            await device.until_end(turn.id)
            assert (device.types[0], device.streamed(turn.id)) == ("turn.started", LONG.text)


@virtual_time
async def test_no_device_is_shown_the_log_of_a_relay_that_takes_nothing() -> None:
    """Who owns the session cannot write to it either: what it says there is old."""
    async with World(reply=LONG) as world:
        assert world.broker is not None
        owner, other, user = await world.process("a"), await world.process("b"), world.user()
        turn = (await owner.send(user, "talk")).turn
        world.broker.is_full = True
        await other.send(world.user(), "hello")
        with pytest.raises(PlatformError) as refusal:
            await other.device(user)
        assert refusal.value.code is ErrorCode.EVENTS_UNAVAILABLE
        await (await owner.device(user)).until_end(turn.id)
        world.broker.is_full = False
        await asyncio.sleep(5)
        device = await other.device(user)
        assert device.attachment is not None
        assert device.attachment.snapshot.running is None
