"""Who goes on in an epoch and who begins a new one: releases, crashes, lost answers, lost replicas, late followers."""

import asyncio
import copy
from collections.abc import Iterator, Sequence

import pytest

from server.ports import Append, Lease, Refusal, ReplicaState, ReplicasUnavailableError, Rewrite
from server.protocol.codes import MOVED, TRY_AGAIN_LATER, ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.sessions.events.snapshot import View
from tests.fakes.agent import Reply
from tests.unit.sessions.device import Device
from tests.unit.sessions.world import SHARED, SPOKEN, World
from tests.virtual_time import virtual_time

LONG = Reply(words=("word ",) * 300, per_word=0.1)
REPLICATED = 0.1
"""Seconds after which an event has reached the replica and the followers."""


@pytest.fixture(autouse=True)
def placement() -> Iterator[None]:
    token = SHARED.set(True)
    yield
    SHARED.reset(token)


def epochs(device: Device) -> list[str]:
    """Of the events it was given, in order, each once."""
    seen = [event["epoch"] for event in device.events]
    return [epoch for place, epoch in enumerate(seen) if place == 0 or epoch != seen[place - 1]]


@virtual_time
async def test_owners_that_follow_one_another_by_releases_go_on_in_one_epoch() -> None:
    async with World() as world:
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        phone, laptop = await first.device(user), await second.device(user)
        for process in (first, second, first, second):
            turn = (await process.send(user, "count")).turn
            await phone.until_end(turn.id)
            await laptop.until_end(turn.id)
            await asyncio.sleep(1)
        assert len(epochs(phone)) == 1
        assert epochs(phone) == epochs(laptop)
        third = await world.process("c")  # it has no copy of its own, and finds the replica at the mark
        turn = (await third.send(user, "count")).turn
        await phone.until_end(turn.id)
        assert len(epochs(phone)) == 1


@virtual_time
async def test_an_owner_whose_lease_ran_out_and_who_gets_the_next_one_goes_on() -> None:
    async with World(reply=LONG) as world:
        process, user = await world.process("a"), world.user()
        device = await process.device(user)
        turn = (await process.send(user, "talk")).turn
        await device.until_text(turn.id, "word ")
        row = world.database.sessions[user]
        fence, epoch = row.fence, device.cursor.epoch
        row.owner = None  # as a lease that has run out
        await process.send(user, "wait")
        assert (world.database.sessions[user].fence, world.owner(user)) == (fence + 1, "a")
        await device.until_end(turn.id)
        assert epochs(device) == [epoch]


@virtual_time
async def test_after_a_crash_the_next_owner_begins_a_new_epoch_that_shows_what_was_replicated() -> None:
    async with World(reply=LONG) as world:
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        phone, laptop = await first.device(user), await second.device(user)
        turn = (await first.send(user, "talk")).turn
        await laptop.until_text(turn.id, "word word word ")
        first.kill()
        shown = laptop.streamed(turn.id)
        await laptop.until(lambda: len(epochs(laptop)) == 2)
        assert laptop.streamed(turn.id).startswith(shown)
        await laptop.until_end(turn.id)
        assert laptop.streamed(turn.id) == LONG.text
        assert epochs(phone) == epochs(laptop)[:1]


@virtual_time
async def test_what_a_thawed_owner_delivers_is_in_an_epoch_that_no_owner_continues() -> None:
    async with World(reply=LONG) as world:
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        phone = await first.device(user)
        turn = (await first.send(user, "talk")).turn
        await phone.until_text(turn.id, "word word ")
        first.boundary.freeze()
        laptop = await second.device(user)
        await laptop.until(lambda: len(epochs(laptop)) == 1 and epochs(laptop) != epochs(phone))
        first.boundary.thaw()
        await phone.until(lambda: phone.closed)
        assert phone.closed is MOVED
        await laptop.until_end(turn.id)
        assert not set(epochs(phone)) & set(epochs(laptop))
        assert world.sends("talk") == 1


@pytest.mark.parametrize("is_released", [True, False])
@virtual_time
async def test_a_release_whose_answer_was_lost_is_repeated(is_released: bool) -> None:
    """Released after all, the instance follows; if not, its numbers may belong to another owner's events."""
    async with World() as world:
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        phone, laptop = await first.device(user), await second.device(user)
        failed = asyncio.Event()

        async def fail(operation: str) -> None:
            if operation == "release" and not failed.is_set():
                failed.set()
                raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

        setattr(world.database, "after" if is_released else "before", fail)
        turn = (await first.send(user, "one")).turn
        await failed.wait()
        if not is_released:  # it is refused from now on, since something waits
            later = (await second.send(user, "two")).turn
            await laptop.until_end(later.id)
            await phone.until_end(later.id)
        await asyncio.sleep(5)
        assert world.owner(user) is None
        await phone.until_end(turn.id)
        again = (await second.send(user, "three")).turn
        await phone.until_end(again.id)
        await laptop.until_end(again.id)
        assert len(epochs(phone)) == (1 if is_released else 2)
        assert epochs(laptop) == epochs(phone)


@virtual_time
async def test_a_lost_replica_is_rewritten_by_its_owner_and_no_device_notices() -> None:
    async with World(reply=LONG) as world:
        assert world.broker is not None
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        laptop = await second.device(user)
        turn = (await first.send(user, "talk")).turn
        await laptop.until_text(turn.id, "word word ")
        assert laptop.attachment is not None
        begun = laptop.attachment.session.log.beginnings
        world.broker.forget(user)
        await laptop.until_end(turn.id)
        assert (laptop.streamed(turn.id), len(epochs(laptop))) == (LONG.text, 1)
        assert laptop.attachment.session.log.beginnings == begun


@pytest.mark.parametrize("has_copy", [True, False])
@virtual_time
async def test_a_replica_lost_without_an_owner_costs_an_epoch_only_if_no_copy_stands_at_the_mark(
    has_copy: bool,
) -> None:
    async with World() as world:
        assert world.broker is not None
        first, user = await world.process("a"), world.user()
        phone = await first.device(user)
        await phone.until_end((await first.send(user, "one")).turn.id)
        await asyncio.sleep(1)
        cursor = phone.cursor
        world.broker.forget(user)
        other = first if has_copy else await world.process("b")
        await other.send(user, "two")
        device = Device()
        assert (await device.join(other.hub, user, cursor)).resumed == has_copy


@virtual_time
async def test_a_cursor_that_is_ahead_of_a_follower_is_waited_for() -> None:
    async with World(reply=LONG) as world:
        assert world.broker is not None
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        phone, laptop = await first.device(user), await second.device(user)
        turn = (await first.send(user, "talk")).turn
        await laptop.until_text(turn.id, "word word ")
        await phone.until_text(turn.id, "word word word word ")
        ahead = EventCursor(phone.cursor.epoch, phone.cursor.seq + 2)
        tablet = Device()
        attachment = await tablet.join(second.hub, user, ahead)
        assert (attachment.resumed, attachment.snapshot.cursor.seq >= ahead.seq) == (True, True)


@pytest.mark.parametrize("cursor", ["unknown", "far"])
@virtual_time
async def test_an_unknown_cursor_is_answered_with_a_snapshot(cursor: str) -> None:
    async with World(reply=LONG) as world:
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        phone = await first.device(user)
        turn = (await first.send(user, "talk")).turn
        await phone.until_text(turn.id, "word word ")
        after = EventCursor("another-epoch", 3) if cursor == "unknown" else EventCursor(phone.cursor.epoch, 9_999)
        tablet = Device()
        assert not (await tablet.join(second.hub, user, after)).resumed
        await tablet.until_end(turn.id)
        assert tablet.streamed(turn.id) == LONG.text


@virtual_time
async def test_connections_elsewhere_are_closed_if_an_owner_renews_its_lease_and_publishes_nothing() -> None:
    async with World(reply=Reply(words=("word ",) * 600, per_word=0.1)) as world:
        assert world.broker is not None
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        phone, laptop = await first.device(user), await second.device(user)
        turn = (await first.send(user, "talk")).turn
        await laptop.until_text(turn.id, "word word ")
        backend = world.broker.backends[0]
        backend.report_unavailable = lambda: None  # type: ignore[method-assign]
        setattr(backend, "append", _hang)  # noqa: B010
        await laptop.until(lambda: laptop.closed)
        assert laptop.closed is TRY_AGAIN_LATER
        assert phone.closed is None


@virtual_time
async def test_an_owner_that_says_nothing_for_long_is_heard_though_it_copies_for_others_all_the_time() -> None:
    async with World() as world:
        first, second = await world.process("a"), await world.process("b")
        silent, talking = world.user(), world.user()
        laptop = await second.device(silent)
        world.gateway.plan(Reply(first_token=60.0), Reply(words=("word ",) * 10_000, per_word=0.01))
        turn = (await first.send(silent, "think")).turn
        await first.send(talking, "talk")
        await laptop.until(lambda: laptop.closed or laptop.ends)
        assert (laptop.closed, set(laptop.ends)) == (None, {(turn.id, 1)})


async def _hang(_appends: Sequence[Append]) -> list[int | Refusal]:
    await asyncio.Event().wait()
    return []


@virtual_time
async def test_an_event_announced_without_an_owner_is_delivered_once_on_each_instance() -> None:
    async with World() as world:
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        devices = [await first.device(user), await second.device(user)]
        await asyncio.sleep(1)
        first.hub.agent_changed(user, AgentStatus.ACTIVE, "ready")
        await asyncio.sleep(5)
        for device in devices:
            assert [event["status"] for event in device.events if event["type"] == "agent.status"] == ["active"]
        assert world.owner(user) is None


@virtual_time
async def test_when_the_backend_recovers_open_sessions_are_rewritten_and_idle_ones_released() -> None:
    async with World() as world:
        assert world.broker is not None
        first, second = await world.process("a"), await world.process("b")
        idle, busy = world.user(), world.user()
        resting, talking = await first.device(idle), await first.device(busy)
        world.broker.crash()
        await asyncio.sleep(5)
        assert (world.owner(idle), world.owner(busy)) == ("a", "a")
        world.gateway.plan(Reply(words=("word ",) * 100, per_word=0.3))
        turn = (await first.send(busy, "talk")).turn
        await talking.until_text(turn.id, "word ")
        world.broker.start()
        await asyncio.sleep(10)
        assert (world.owner(idle), world.owner(busy), resting.closed) == (None, "a", None)
        follower = await second.device(busy)
        await follower.until_end(turn.id)
        assert follower.streamed(turn.id) == "word " * 100
        assert SPOKEN.text


@virtual_time
async def test_a_lease_is_not_released_while_the_replica_lacks_delivered_events() -> None:
    """The next owner would publish the end again."""
    async with World() as world:
        assert world.broker is not None
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        phone = await first.device(user)
        backend = world.broker.backends[0]
        working = backend.append

        async def fail(_appends: Sequence[Append]) -> list[int | Refusal]:
            await asyncio.sleep(1)
            raise ReplicasUnavailableError

        async def fail_from_the_end_on(operation: str) -> None:
            if operation == "finish":
                setattr(backend, "append", fail)  # noqa: B010

        world.database.after = fail_from_the_end_on
        turn = (await first.send(user, "count")).turn
        await phone.until_end(turn.id)
        await asyncio.sleep(10)
        assert world.owner(user) == "a"
        setattr(backend, "append", working)  # noqa: B010
        await asyncio.sleep(10)
        assert world.owner(user) is None
        laptop = await second.device(user)
        again = (await second.send(user, "again")).turn
        await phone.until_end(again.id)
        await laptop.until_end(again.id)
        assert (len(epochs(phone)), set(phone.ends)) == (1, {(turn.id, 1), (again.id, 1)})


@pytest.mark.parametrize("seconds", [1.0, 5.0])
@virtual_time
async def test_a_device_that_joins_during_an_outage_is_served_and_receives_all_that_follows(seconds: float) -> None:
    """Shorter than it takes to call the backend unavailable, or longer."""
    async with World() as world:
        assert world.broker is not None
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        world.broker.crash()
        device = await second.device(user)
        await asyncio.sleep(seconds)
        assert (world.owner(user), device.closed) == ("b", None)
        world.broker.start()
        await asyncio.sleep(10)
        assert world.owner(user) is None
        for process in (first, second, first):
            turn = (await process.send(user, "count")).turn
            await device.until_end(turn.id)
            assert device.streamed(turn.id) == SPOKEN.text
            await asyncio.sleep(1)


@pytest.mark.parametrize("awaited", ["database", "replica"])
@virtual_time
async def test_a_session_that_was_lost_while_it_was_given_the_lease_never_writes(awaited: str) -> None:
    """The one that follows it has the same lease, and would have its replica rewritten again and again."""
    async with World() as world:
        assert world.broker is not None
        process, user = await world.process("a"), world.user()
        device = await process.device(user)
        await device.until_end((await process.send(user, "before")).turn.id)
        await asyncio.sleep(1)
        world.broker.forget(user)
        waiting, proceed = asyncio.Event(), asyncio.Event()
        backend = world.broker.backends[0]
        take_over = backend.take_over

        async def hold(operation: str) -> None:
            if operation == "accept" and not waiting.is_set():
                waiting.set()
                await proceed.wait()

        async def hold_replica(lease: Lease) -> ReplicaState | None:
            setattr(backend, "take_over", take_over)  # noqa: B010
            await hold("accept")
            return await take_over(lease)

        if awaited == "database":
            world.database.after = hold
        else:
            device.attachment.session.log.restart("other", 1, View(), (None, None), "")  # type: ignore[union-attr]
            setattr(backend, "take_over", hold_replica)  # noqa: B010
        sending = asyncio.create_task(process.send(user, "meanwhile"))
        await waiting.wait()
        assert device.attachment is not None
        device.attachment.session.lost()
        again = await process.device(user)
        proceed.set()
        turn = (await sending).turn
        await again.until_end(turn.id)
        await asyncio.sleep(20)
        assert world.owner(user) is None
        state = world.broker.replicas[user].state
        assert (state.epoch, state.head) == (again.cursor.epoch, again.cursor.seq)
        rewritten = 0

        async def count(_rewrites: Sequence[Rewrite]) -> list[int | Refusal]:
            nonlocal rewritten
            rewritten += 1
            return []

        setattr(backend, "rewrite", count)  # noqa: B010
        world.broker.forget(user)
        await asyncio.sleep(20)
        assert rewritten == 0


@virtual_time
async def test_a_session_that_succeeds_a_lost_one_under_the_same_lease_begins_a_new_epoch() -> None:
    """The lost one had appended events after the mark, and the replica has lost its last second."""
    async with World(reply=LONG) as world:
        assert world.broker is not None
        process, user = await world.process("a"), world.user()
        phone = await process.device(user)
        await phone.until_end((await process.send(user, "one")).turn.id)
        await asyncio.sleep(1)
        saved = copy.deepcopy(world.broker.replicas)
        await process.send(user, "two")
        await asyncio.sleep(0.5)
        assert phone.attachment is not None
        phone.attachment.session.lost()
        world.broker.replicas = saved
        again = await process.device(user)
        await process.send(user, "three")
        await again.until(lambda: again.ends)
        assert not set(epochs(again)) & set(epochs(phone))
