"""Several processes around a relay that forgets, fills up and dies: every device sees what happens all the same."""

import asyncio
from collections.abc import Iterator

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, TurnStatus
from server.sessions.events.snapshot import Snapshot
from tests.fakes.agent import Reply
from tests.unit.sessions.device import Device
from tests.unit.sessions.world import SHARED, SPOKEN, World
from tests.virtual_time import virtual_time

LONG = Reply(words=("word ",) * 300, per_word=0.1)
REPLICATED = 0.1
"""Seconds after which an event has reached the replica."""


class Watcher(Device):
    """Remembers what it was last greeted with."""

    def _take(self, snapshot: Snapshot) -> None:
        super()._take(snapshot)
        self.waiting = {turn["id"] for turn in snapshot.queued}


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
        await asyncio.sleep(REPLICATED)
        gone.kill()
        world.broker.forget(user)
        devices = [await (await world.process(name)).device(user) for name in ("b", "c")]
        for device in devices:
            assert device.attachment is not None
            assert device.attachment.snapshot.running is not None
        for device in devices:
            await device.until_end(turn.id)
            assert device.streamed(turn.id) == LONG.text


@virtual_time
async def test_a_turn_that_ended_before_a_lost_replica_was_rewritten_is_not_shown_as_open() -> None:
    """Two processes knew of it from the rows; the one that takes over may know of it no more."""
    async with World() as world:
        assert world.broker is not None
        gone, user = await world.process("a"), world.user()
        turn, waiting = (await gone.send(user, "talk")).turn, (await gone.send(user, "later")).turn
        await asyncio.sleep(REPLICATED)
        gone.kill()
        world.broker.forget(user)
        watchers = [Watcher(), Watcher()]
        processes = [await world.process(name) for name in ("b", "c")]
        for process, watcher in zip(processes, watchers, strict=True):
            await watcher.join(process.hub, user)
            assert watcher.waiting == {waiting.id}
        await processes[0].cancel(user, waiting.id)
        for watcher in watchers:
            await watcher.until_end(turn.id)
            assert watcher.waiting - {ended for ended, _ in watcher.ends} == set()


@virtual_time
async def test_a_replica_that_was_lost_is_begun_again_in_another_epoch() -> None:
    """The process that begins it again has heard nothing of what others said in the lost one."""
    async with World(reply=LONG) as world:
        assert world.broker is not None
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        device, listener = await first.device(user), await second.device(user)
        second.boundary.freeze()
        first.hub.agent_changed(user, AgentStatus.ACTIVE, None)
        await device.until(lambda: device.events)
        await asyncio.sleep(1)
        cursor = device.cursor
        first.kill()
        device.leave()
        world.broker.forget(user)
        world.broker.backends[1].cut()
        second.boundary.thaw()
        await asyncio.sleep(1)
        turn = (await second.send(user, "talk")).turn
        await listener.until_text(turn.id, "word ")
        assert not (await device.join(second.hub, user, cursor)).resumed
        await device.until_end(turn.id)
        assert device.streamed(turn.id) == LONG.text


@virtual_time
async def test_what_was_shown_of_a_lost_log_cannot_be_resumed_elsewhere() -> None:
    async with World(reply=LONG) as world:
        assert world.broker is not None
        gone, user = await world.process("a"), world.user()
        turn, waiting = (await gone.send(user, "talk")).turn, (await gone.send(user, "later")).turn
        await asyncio.sleep(REPLICATED)
        gone.kill()
        world.broker.forget(user)
        first = await world.process("b")
        watcher = Watcher()
        await watcher.join(first.hub, user)
        await first.cancel(user, waiting.id)
        second = await world.process("c")
        assert not (await watcher.join(second.hub, user, watcher.cursor)).resumed
        await watcher.until_end(turn.id)
        assert watcher.waiting - {ended for ended, _ in watcher.ends} == set()


@virtual_time
async def test_a_backend_that_accepts_no_writes_is_not_read() -> None:
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
async def test_an_owner_that_could_not_replicate_its_last_event_follows_the_next_owner() -> None:
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
async def test_an_append_under_way_at_the_release_is_not_published_again() -> None:
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
        assert [backend.followed for backend in world.broker.backends] == [set()]


@virtual_time
async def test_a_waiting_turn_that_was_cancelled_before_its_owner_saw_it_ends_on_every_device() -> None:
    """It was stored and cancelled by way of another process, whose first notice was lost."""
    async with World(reply=LONG) as world:
        assert world.broker is not None
        owner, user = await world.process("a"), world.user()
        other = await world.process("b")
        phone, laptop = await owner.device(user), await other.device(user)
        running = (await owner.send(user, "talk")).turn
        await laptop.until_text(running.id, "word ")
        world.broker.loses_control = True
        waiting = (await other.send(user, "never mind")).turn
        world.broker.loses_control = False
        cancelled = await other.cancel(user, waiting.id)
        assert cancelled.turn.status is TurnStatus.CANCELLED
        for device in (phone, laptop):
            assert (await device.until_end(waiting.id))["type"] == "turn.cancelled"
        await other.cancel(user, waiting.id)
        await phone.until_end(running.id)
        await laptop.until_end(running.id)
        assert [event["type"] for event in phone.events if event.get("turn_id") == waiting.id] == ["turn.cancelled"]


@pytest.mark.parametrize(("again", "forgets"), [("send", False), ("send", True), ("cancel", False)])
@virtual_time
async def test_an_end_is_published_once_though_the_next_owner_did_not_follow(again: str, forgets: bool) -> None:
    """Somebody asks for an ended turn once more while another process, which did not tell of it, owns the user."""
    async with World(reply=LONG) as world:
        assert world.broker is not None
        first, user = await world.process("a"), world.user()
        other = await world.process("b")
        phone = await first.device(user)
        turn = (await first.send(user, "talk", message_id="m1")).turn
        await phone.until_text(turn.id, "word ")
        await first.cancel(user, turn.id)
        await phone.until_end(turn.id)
        await asyncio.sleep(1.0)
        assert world.owner(user) is None
        if forgets:
            world.broker.forget(user)
        running = (await other.send(user, "go on")).turn
        await phone.until_text(running.id, "word ")
        if again == "send":
            assert (await first.send(user, "talk", message_id="m1")).duplicate
        else:
            assert (await first.cancel(user, turn.id)).duplicate
        await phone.until_end(running.id)
        assert phone.types.count("turn.cancelled") == 1
