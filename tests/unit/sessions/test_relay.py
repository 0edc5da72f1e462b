"""Several processes around a relay that forgets, fills up and dies: every device sees what happens all the same."""

import asyncio
from collections.abc import Iterator

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.agent import Reply
from tests.unit.sessions.world import SHARED, SPOKEN, World
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


@virtual_time
async def test_a_process_that_could_not_say_its_last_word_hears_the_next_owner() -> None:
    async with World() as world:
        assert world.broker is not None
        broker, first, second, user = world.broker, await world.process("a"), await world.process("b"), world.user()
        device = await first.device(user)

        async def fill(operation: str) -> None:
            broker.is_full = broker.is_full or operation == "finish"

        world.database.after = fill
        await device.until_end((await first.send(user, "one")).turn.id)
        await asyncio.sleep(10)
        assert world.owner(user) == "a"  # nobody else knows yet
        world.database.after, broker.is_full = None, False
        await asyncio.sleep(10)
        assert world.owner(user) is None
        turn = (await second.send(user, "two")).turn
        async with asyncio.timeout(60):
            await device.until_end(turn.id)
        assert device.streamed(turn.id) == SPOKEN.text


@virtual_time
async def test_what_was_on_its_way_when_the_lease_was_given_back_is_not_said_again() -> None:
    """The process stops for longer than it waits for its last word to arrive. It had arrived."""
    async with World() as world:
        first, user = await world.process("a"), world.user()
        watcher = await (await world.process("b")).device(user)
        finished = asyncio.Event()

        async def tell(operation: str) -> None:
            if operation == "finish":
                finished.set()

        world.database.after = tell
        turn = (await first.send(user, "one")).turn
        await finished.wait()
        await asyncio.sleep(0.0055)  # the outbox gathers for 5 ms, the broker takes 1 ms
        first.boundary.freeze()
        await watcher.until_end(turn.id)
        await asyncio.sleep(7)
        first.boundary.thaw()
        await asyncio.sleep(1)
        assert world.owner(user) is None
        again = (await first.send(user, "two")).turn
        async with asyncio.timeout(60):
            await watcher.until_end(again.id)
        ends = [event["turn_id"] for event in watcher.events if event["type"] == "turn.completed"]
        assert ends == [turn.id, again.id]


@virtual_time
async def test_a_session_that_could_not_be_opened_is_not_followed() -> None:
    async with World() as world:
        assert world.broker is not None
        process, user = await world.process(), world.user()

        async def fail(operation: str) -> None:
            if operation == "open_turns":
                raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

        world.database.before = fail
        with pytest.raises(PlatformError):
            await process.device(user)
        assert [relay.followed for relay in world.broker.relays] == [set()]
