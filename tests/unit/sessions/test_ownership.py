"""Who may run a user's turns: leases, fences, takeover, drain, idleness."""

import asyncio

import pytest

from server.protocol.codes import MOVED, SERVICE_RESTART, TOO_MANY_CONNECTIONS, ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.protocol.shapes import AgentStatus, TurnStatus
from server.sessions.hub import RefusedConnectionError
from tests.fakes.agent import Reply
from tests.unit.sessions.device import Device
from tests.unit.sessions.world import SPOKEN, TOKENS, World
from tests.virtual_time import virtual_time

LONG = Reply(words=("word ",) * 300, per_word=0.1)


@virtual_time
async def test_a_fenced_owner_changes_nothing() -> None:
    """A process is paused in the middle of a turn, loses the user to another one, and wakes up again."""
    async with World(reply=LONG) as world:
        paused, user = await world.process("a"), world.user()
        device = await paused.device(user)
        turn = (await paused.send(user, "talk")).turn
        await device.until_text(turn.id, "word ")
        paused.boundary.freeze()
        other = await world.process("b")
        watcher = await other.device(user)
        await asyncio.sleep(20)
        assert world.owner(user) == "b"
        paused.boundary.thaw()
        await device.until(lambda: device.closed)
        assert device.closed is MOVED
        assert (world.owner(user), world.turn(turn.id).status) == ("b", TurnStatus.RUNNING)
        end = await watcher.until_end(turn.id)
        assert end["type"] == "turn.completed"
        assert (world.reply_of(turn.id), world.sends("talk"), world.charged(user)) == (LONG.text, 1, TOKENS)
        assert world.gateway.cancels == []


@virtual_time
async def test_an_owner_that_finishes_after_it_was_fenced_stores_nothing() -> None:
    async with World() as world:
        paused, user = await world.process("a"), world.user()
        device = await paused.device(user)
        turn = (await paused.send(user, "count")).turn
        await device.until_text(turn.id, SPOKEN.text)
        paused.boundary.freeze()
        watcher = await (await world.process("b")).device(user)
        end = await watcher.until_end(turn.id)
        stored = world.turn(turn.id)
        paused.boundary.thaw()
        await device.until(lambda: device.closed)
        await asyncio.sleep(60)
        assert world.turn(turn.id) == stored
        assert end["turn"]["status"] == "completed"
        assert world.charged(user) == TOKENS


@virtual_time
async def test_an_owner_whose_lease_may_have_run_out_does_not_send() -> None:
    """Provisioning takes longer than the lease, and the database cannot be reached meanwhile."""
    async with World() as world:
        world.agents.delay = 20.0
        paused, user = await world.process("a"), world.user()
        turn = (await paused.send(user, "hello")).turn
        await asyncio.sleep(1)
        paused.boundary.freeze()
        world.agents.delay = 0.0
        watcher = await (await world.process("b")).device(user)
        await watcher.until_end(turn.id)
        paused.boundary.thaw()
        await asyncio.sleep(120)
        assert (world.sends("hello"), world.charged(user)) == (1, TOKENS)


@virtual_time
async def test_a_message_sent_to_a_second_process_runs_when_the_first_owner_has_stopped() -> None:
    async with World() as world:
        first, user = await world.process("a"), world.user()
        world.gateway.plan(Reply(SPOKEN.words, per_word=3.0))
        running = (await first.send(user, "one")).turn
        second = await world.process("b")
        device = await second.device(user)
        waiting = (await second.send(user, "two")).turn
        assert waiting.queue_position == 1
        await asyncio.sleep(5)
        assert world.turn(waiting.id).status is TurnStatus.QUEUED
        await first.stop()
        assert (await device.until_end(waiting.id))["type"] == "turn.completed"
        assert device.ends[running.id, 1]["turn"]["message"]["content"] == SPOKEN.text


@virtual_time
async def test_a_device_on_another_process_receives_the_end_of_the_owners_turn() -> None:
    async with World() as world:
        first, user = await world.process("a"), world.user()
        turn = (await first.send(user, "count")).turn
        device = await (await world.process("b")).device(user)
        assert device.attachment is not None
        assert device.attachment.snapshot.running is not None
        end = await device.until_end(turn.id)
        assert end["turn"]["message"]["content"] == SPOKEN.text
        assert world.sends("count") == 1


@virtual_time
async def test_drain_lets_the_running_turn_finish_and_leaves_the_waiting_one_to_the_next_owner() -> None:
    async with World() as world:
        first, user = await world.process("a"), world.user()
        device = await first.device(user)
        running, waiting = (await first.send(user, "one")).turn, (await first.send(user, "two")).turn
        await first.hub.drain(60)
        assert (device.ends[running.id, 1]["type"], device.closed) == ("turn.completed", SERVICE_RESTART)
        assert world.turn(waiting.id).status is TurnStatus.QUEUED
        await first.stop()
        assert world.owner(user) is None
        device = await (await world.process("b")).device(user)
        assert (await device.until_end(waiting.id))["type"] == "turn.completed"
        assert world.sends("two") == 1


@virtual_time
async def test_drain_closes_idle_connections_before_it_waits_for_running_turns() -> None:
    async with World() as world:
        process, idle, busy = await world.process("a"), world.user(), world.user()
        resting, talking = await process.device(idle), await process.device(busy)
        world.gateway.plan(Reply(stuck=True))
        await process.send(busy, "long")
        draining = asyncio.create_task(process.hub.drain(60))
        await asyncio.sleep(1)
        assert (resting.closed, talking.closed) == (SERVICE_RESTART, None)
        assert (world.owner(busy), draining.done()) == ("a", False)
        await draining
        assert (talking.closed, world.owner(busy)) == (SERVICE_RESTART, None)


@virtual_time
async def test_a_message_that_is_being_stored_while_its_instance_drains_is_acknowledged() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        await process.device(user)
        arrived = asyncio.Event()

        async def slow(operation: str) -> None:
            if operation == "accept":
                arrived.set()
                await asyncio.sleep(1)

        world.database.before = slow
        sending = asyncio.create_task(process.send(user, "hello"))
        await arrived.wait()
        await process.hub.drain(60)
        accepted = await sending
        assert world.turns(user) == [world.turn(accepted.turn.id)]
        assert world.owner(user) is None


@virtual_time
async def test_a_lease_is_held_only_while_turns_are_open() -> None:
    async with World() as world:
        process, user = await world.process("a"), world.user()
        device = await process.device(user)
        turn, waiting = (await process.send(user, "one")).turn, (await process.send(user, "two")).turn
        await device.until_end(turn.id)
        assert world.owner(user) == "a"
        await device.until_end(waiting.id)
        await asyncio.sleep(0.01)
        assert world.owner(user) is None


@virtual_time
async def test_a_message_that_another_process_stores_during_the_release_is_run_by_the_owner() -> None:
    """The rows decide in one order: whoever comes second sees what the other did."""
    async with World() as world:
        first, user = await world.process("a"), world.user()
        second = await world.process("b")
        device = await first.device(user)
        answered = asyncio.Event()

        async def just_before(operation: str) -> None:
            if operation == "release" and not answered.is_set():
                answered.set()
                assert not (await second.send(user, "two", message_id="second")).started

        world.database.before = just_before
        await device.until_end((await first.send(user, "one")).turn.id)
        await device.until(lambda: len(device.ends) == 2)
        assert (world.sends("one"), world.sends("two")) == (1, 1)


@virtual_time
async def test_drain_starts_no_turn_that_waits_for_a_slot() -> None:
    async with World(limits=Limits(running_turns=1)) as world:
        process, ann, ben = await world.process(), world.user(), world.user()
        running, waiting = (await process.send(ann, "one")).turn, (await process.send(ben, "two")).turn
        await process.hub.drain(60)
        assert world.turn(running.id).status is TurnStatus.COMPLETED
        assert world.turn(waiting.id).status is TurnStatus.QUEUED
        assert world.sends("two") == 0


@virtual_time
async def test_drain_does_not_wait_for_a_session_that_only_waits_for_its_lease() -> None:
    async with World(reply=LONG) as world:
        first, user = await world.process("a"), world.user()
        await first.send(user, "talk")
        second = await world.process("b")
        await second.device(user)
        async with asyncio.timeout(2):
            await second.hub.drain(60)


@virtual_time
async def test_a_drain_that_is_cut_short_leaves_the_turn_to_be_recovered() -> None:
    async with World(reply=LONG) as world:
        first, user = await world.process("a"), world.user()
        device = await first.device(user)
        turn = (await first.send(user, "talk")).turn
        await device.until_text(turn.id, "word ")
        await first.hub.drain(1)
        await first.stop()
        assert world.turn(turn.id).status is TurnStatus.RUNNING
        device = await (await world.process("b")).device(user)
        assert (await device.until_end(turn.id))["type"] == "turn.completed"
        assert (device.text(turn.id), world.sends("talk")) == (LONG.text, 1)


@virtual_time
async def test_a_draining_process_refuses_messages_retries_and_connections() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        await process.hub.drain(1)
        with pytest.raises(PlatformError) as refusal:
            await process.send(user, "hello")
        assert refusal.value.code is ErrorCode.DRAINING
        with pytest.raises(PlatformError):
            await process.retry(user, "a turn")
        with pytest.raises(RefusedConnectionError) as refused:
            await process.device(user)
        assert refused.value.code is SERVICE_RESTART
        assert world.turns(user) == []


@virtual_time
async def test_the_seventeenth_connection_is_refused_until_another_one_closes() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        devices = [await process.device(user) for _ in range(16)]
        with pytest.raises(RefusedConnectionError) as refused:
            await process.device(user)
        assert refused.value.code is TOO_MANY_CONNECTIONS
        devices[0].leave()
        await process.device(user)


@virtual_time
async def test_a_session_idle_for_five_minutes_is_dropped() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        await device.until_end((await process.send(user, "hello")).turn.id)
        await asyncio.sleep(400)
        assert process.hub.counts["sessions"] == 1
        device.leave()
        await asyncio.sleep(290)
        assert process.hub.counts["sessions"] == 1
        await asyncio.sleep(60)
        assert (process.hub.counts["sessions"], world.owner(user)) == (0, None)


@virtual_time
async def test_a_message_that_arrives_during_the_release_claims_a_new_lease() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        releasing = asyncio.Event()

        async def slow(operation: str) -> None:
            if operation == "release":
                releasing.set()
                await asyncio.sleep(1)

        world.database.before = slow
        await device.until_end((await process.send(user, "hello")).turn.id)
        device.leave()
        await releasing.wait()
        world.gateway.plan(LONG)
        turn = (await process.send(user, "back again")).turn
        device = await process.device(user)
        await device.until_text(turn.id, "word ")
        assert (world.owner(user), device.closed) == ("a", None)
        await device.until_end(turn.id)


@virtual_time
async def test_an_idle_session_holds_no_task() -> None:
    async with World() as world:
        process = await world.process()
        before = len(asyncio.all_tasks())
        users = [world.user() for _ in range(50)]
        devices = [await process.device(user) for user in users]
        for user, device in zip(users, devices, strict=True):
            await device.until_end((await process.send(user, "hello")).turn.id)
        await asyncio.sleep(1)
        assert process.hub.counts["sessions"] == 50
        assert len(asyncio.all_tasks()) == before


@virtual_time
async def test_a_blocked_account_loses_its_connections() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        process.hub.agent_changed(user, AgentStatus.ACTIVE, None)
        await device.until(lambda: device.events)
        assert device.events[-1] | {"type": "agent.status", "status": "active"} == device.events[-1]
        process.hub.agent_changed(user, AgentStatus.BLOCKED, "unpaid")
        assert device.closed is not None
        assert device.closed.code == 4503


@virtual_time
async def test_many_who_ask_at_once_share_one_session() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        devices = [Device() for _ in range(8)]
        attached = await asyncio.gather(*(device.join(process.hub, user) for device in devices))
        assert len({id(one.session) for one in attached}) == 1


@virtual_time
async def test_the_owner_polls_for_what_another_process_stored() -> None:
    """Its notices are lost: the owner looks at the rows all the same."""
    async with World() as world:
        first, user = await world.process("a"), world.user()
        second = await world.process("b")
        if world.broker is not None:
            world.broker.loses_control = True
        device = await first.device(user)
        world.gateway.plan(Reply(stuck=True))
        running = (await first.send(user, "go on")).turn
        await device.until_text(running.id, "Hello ")
        waiting = (await second.send(user, "two")).turn
        await second.cancel(user, running.id)
        assert (await device.until_end(running.id))["type"] == "turn.cancelled"
        assert (await device.until_end(waiting.id))["type"] == "turn.completed"
        assert asyncio.get_running_loop().time() < 1_000 + 10
