"""Over budget: the message is kept and told of, and nothing is sent; and news that concern no running turn."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from server.ports import Announcement, ControlMessage
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnStatus
from tests.fakes.agent import Reply
from tests.unit.sessions.world import Process, World
from tests.virtual_time import now, virtual_time

COMPLETED, UNSENT = TurnStatus.COMPLETED, TurnStatus.UNSENT


def set_budget(world: World, user: str, limit: str | None) -> None:
    """US dollars; what the replies of these tests cost is more than one."""
    row = world.database.billing_of(user)
    row.limit = None if limit is None else Decimal(limit)
    row.started_at = now() - timedelta(days=1)


async def spend(process: Process, user: str) -> None:
    """A turn that costs something."""
    device = await process.device(user)
    accepted = await process.send(user, "spend")
    await device.until_end(accepted.turn.id)
    device.leave()


@virtual_time
async def test_a_message_over_budget_is_stored_as_unsent_and_published_and_not_sent() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        await spend(process, user)
        set_budget(world, user, "0")
        devices = [await process.device(user), await process.device(user)]

        accepted = await process.send(user, "one more")

        assert (accepted.turn.status, accepted.started) == (UNSENT, False)
        for device in devices:
            event = await device.until_end(accepted.turn.id)
            assert (event["type"], event["turn"]["status"]) == ("turn.failed", "unsent")
            assert event["turn"]["error"]["code"] == ErrorCode.BUDGET_EXCEEDED
            assert event["turn"]["error"]["limit"] == "0"
        assert world.sends("one more") == 0
        assert (await process.send(user, "one more", message_id=accepted.turn.client_message_id)).duplicate


@virtual_time
async def test_nothing_is_left_behind_by_a_refusal() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        await spend(process, user)
        set_budget(world, user, "0")
        await process.send(user, "one more")
        await process.device(user)
        assert process.hub.admission.running == 0
        assert world.turns(user)[-1].status is UNSENT
        set_budget(world, user, None)
        device = await process.device(user)
        accepted = await process.send(user, "and another")
        assert (await device.until_end(accepted.turn.id))["type"] == "turn.completed"


@virtual_time
async def test_what_waits_is_left_unsent_when_the_running_turn_used_the_budget_up() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        first = await process.send(user, "first")
        waiting = [await process.send(user, f"waiting {number}") for number in range(3)]
        set_budget(world, user, "0.000001")

        assert (await device.until_end(first.turn.id))["type"] == "turn.completed"
        for accepted in waiting:
            event = await device.until_end(accepted.turn.id)
            assert (event["turn"]["status"], event["turn"]["error"]["code"]) == ("unsent", "budget_exceeded")
        assert len(world.gateway.sent) == 1
        device.leave()


@virtual_time
async def test_an_unsent_message_is_retried_when_the_budget_allows_it() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        await spend(process, user)
        set_budget(world, user, "0")
        device = await process.device(user)
        unsent = (await process.send(user, "one more")).turn
        assert (await process.retry(user, unsent.id)).turn.status is UNSENT
        set_budget(world, user, None)
        again = await process.retry(user, unsent.id)
        assert again.turn.attempt == 3
        await device.until(lambda: any(e["type"] == "turn.completed" for e in device.events))
        assert world.turn(unsent.id).status is COMPLETED
        assert world.sends("one more") == 1


@virtual_time
async def test_a_refusal_by_a_cached_budget_is_checked_and_the_message_sent_if_it_may_be() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        await spend(process, user)
        set_budget(world, user, "0")
        asked = []

        async def raised(user_id: str) -> bool:
            asked.append(user_id)
            set_budget(world, user, "100")
            return True

        process.hub._has_budget = raised
        device = await process.device(user)
        accepted = await process.send(user, "one more")
        assert (accepted.turn.attempt, accepted.turn.status.ended, asked) == (2, False, [user])
        await device.until(lambda: any(e["type"] == "turn.completed" for e in device.events))


@virtual_time
async def test_a_refusal_through_another_instance_is_published_on_all() -> None:
    async with World(shared=True) as world:
        here, there, user = await world.process("a"), await world.process("b"), world.user()
        near, far = await here.device(user), await there.device(user)
        first = await here.send(user, "first")
        set_budget(world, user, "0")
        refused = await there.send(user, "one more")
        assert refused.turn.status is UNSENT
        for device in (near, far):
            assert (await device.until_end(first.turn.id))["type"] == "turn.completed"
            assert (await device.until_end(refused.turn.id))["turn"]["status"] == "unsent"


@virtual_time
async def test_a_refusal_through_another_instance_is_published_although_the_database_fails_for_a_while() -> None:
    async with World(shared=True, reply=Reply(words=("on ",), stuck=True)) as world:
        here, there, user = await world.process("a"), await world.process("b"), world.user()
        near = await here.device(user)
        first = await here.send(user, "first")
        await near.until_text(first.turn.id, "on ")
        set_budget(world, user, "-1")
        fails = 3

        async def unavailable(operation: str) -> None:
            nonlocal fails
            if operation == "open_turns" and fails:
                fails -= 1
                raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

        world.database.before = unavailable
        refused = await there.send(user, "one more")
        assert refused.turn.status is UNSENT
        assert (await near.until_end(refused.turn.id))["turn"]["status"] == "unsent"
        assert fails == 0


@pytest.mark.parametrize("sender", [0, 1, 2])
@virtual_time
async def test_an_announced_event_reaches_every_device_on_every_instance_once(sender: int) -> None:
    async with World(shared=True) as world:
        processes = [await world.process(name) for name in "abc"]
        user = world.user()
        devices = [await processes[0].device(user), await processes[1].device(user), await processes[1].device(user)]
        news = Announcement("usage.settled", {"cost": "0.1", "cost_status": "settled", "usage": None}, "a-turn", 1)

        processes[sender].hub.announce(user, news)

        for device in devices:
            await device.until(lambda device=device: device.events)  # type: ignore[misc]
        processes[1].hub.received(ControlMessage("announce", user, event=news))  # received late
        accepted = await processes[0].send(user, "hello")
        for device in devices:
            await device.until_end(accepted.turn.id)
            told = [event for event in device.events if event["type"] == "usage.settled"]
            assert [(event["turn_id"], event["cost"]) for event in told] == [("a-turn", "0.1")]


@virtual_time
async def test_turns_that_wait_while_the_budget_runs_out_end_at_once_one_after_the_other() -> None:
    async with World(reply=Reply(words=("word ",) * 5, per_word=0.2)) as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        first = (await process.send(user, "first")).turn
        waiting = [(await process.send(user, f"waiting {number}")).turn for number in range(4)]
        set_budget(world, user, "0")
        await device.until_end(first.id)
        await asyncio.sleep(0.5)
        assert [device.ends[turn.id, 1]["turn"]["status"] for turn in waiting] == ["unsent"] * 4
        assert (world.owner(user), process.hub.admission.running) == (None, 0)
