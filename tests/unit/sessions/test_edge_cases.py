"""What must not hold a user up for ever: text no database stores, ends it refuses, closed accounts, lost sessions."""

import asyncio
from contextlib import suppress

import pytest

from server.protocol.codes import ACCOUNT_CLOSED, ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.protocol.shapes import AgentStatus, TurnStatus
from tests.fakes.agent import Reply
from tests.unit.sessions.world import SPOKEN, TOKENS, World
from tests.virtual_time import virtual_time


@virtual_time
async def test_characters_that_cannot_be_stored_are_left_out_on_every_device_alike() -> None:
    async with World(reply=Reply(words=("nul\0 ", "half \ud83d", " whole \U0001f600"))) as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        turn = (await process.send(user, "say it")).turn
        end = await device.until_end(turn.id)
        assert end["turn"]["message"]["content"] == world.reply_of(turn.id) == "nul half ? whole \U0001f600"
        deltas = [event["text"] for event in device.events if event["type"] == "message.delta"]
        assert "".join(deltas) == world.reply_of(turn.id)


@pytest.mark.parametrize("refusal", [PlatformError(ErrorCode.INVALID_REQUEST), ValueError("numeric field overflow")])
@pytest.mark.parametrize(("refusals", "text"), [(1, SPOKEN.text), (2, "")])
@virtual_time
async def test_an_end_the_database_refuses_fails_the_turn_with_its_text_and_frees_the_next(
    refusal: Exception, refusals: int, text: str
) -> None:
    """Without its text only where that is refused as well."""
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        left = refusals

        async def refuse(operation: str) -> None:
            nonlocal left
            if operation == "finish" and left:
                left -= 1
                raise refusal

        world.database.before = refuse
        first, second = (await process.send(user, "one")).turn, (await process.send(user, "two")).turn
        failed = await device.until_end(first.id)
        assert (failed["type"], failed["turn"]["error"]["code"]) == ("turn.failed", "internal_error")
        assert world.reply_of(first.id) == text
        assert (await device.until_end(second.id))["type"] == "turn.completed"
        assert device.closed is None


@pytest.mark.parametrize("operation", ["finish", "start", "claim"])
@virtual_time
async def test_a_defect_in_running_turns_is_retried_with_growing_pauses(operation: str) -> None:
    """A defect, for half a minute: nobody is asked all the time, and what was accepted ends when it can."""
    async with World() as world:
        process, user = await world.process(), world.user()
        crashes = 0
        broken = True

        async def crash(what: str) -> None:
            nonlocal crashes, broken
            if broken and what == operation:
                crashes += 1
                broken = crashes < 100
                raise ValueError("a defect")

        world.database.before = crash
        first = (await process.send(user, "one")).turn
        second = (await process.send(user, "two")).turn
        if operation == "claim":
            process.kill()
            process = await world.process("next")
        with suppress(TimeoutError):
            async with asyncio.timeout(30):
                while True:  # as a client does that is sent away
                    device = await process.device(user)
                    await device.until(lambda device=device: device.closed is not None)  # type: ignore[misc]
        assert 3 < crashes <= 20  # five crashes of a worker, of up to four calls each
        broken = False
        await asyncio.sleep(45)
        assert [world.turn(turn.id).status.ended for turn in (first, second)] == [True, True]
        assert [world.sends(said) for said in ("one", "two")] == [1, 1]
        again = (await process.send(user, "three")).turn
        await asyncio.sleep(5)
        assert world.turn(again.id).status is TurnStatus.COMPLETED


@virtual_time
async def test_a_user_whose_turns_crash_takes_no_slot_from_others_meanwhile() -> None:
    async with World(limits=Limits(running_turns=1)) as world:
        process, crashing, other = await world.process(), world.user(), world.user()
        crashed = asyncio.Event()

        async def crash(operation: str) -> None:
            if operation == "finish" and crashing in process.hub.sessions:
                crashed.set()
                raise ValueError("a defect")

        world.database.before = crash
        await process.send(crashing, "one")
        await crashed.wait()
        await asyncio.sleep(0.01)
        assert process.hub.admission.running == 0
        world.database.before = None
        device = await process.device(other)
        turn = (await process.send(other, "two")).turn
        assert (await device.until_end(turn.id))["type"] == "turn.completed"


@virtual_time
async def test_blocking_an_account_closes_its_connections_and_stops_its_spending() -> None:
    async with World(reply=Reply(words=("on ",), stuck=True)) as world:
        process, user, other = await world.process(), world.user(), world.user()
        phone, laptop, bystander = [await process.device(who) for who in (user, user, other)]
        turn = (await process.send(user, "go on")).turn
        await phone.until_text(turn.id, "on ")
        account = world.database.profiles[user].account
        world.database.profiles[user].account = type(account)(
            **{field: getattr(account, field) for field in account.__slots__} | {"agent_status": AgentStatus.BLOCKED}
        )
        await asyncio.sleep(20)
        assert (phone.closed, laptop.closed, bystander.closed) == (ACCOUNT_CLOSED, ACCOUNT_CLOSED, None)
        assert world.turn(turn.id).status is TurnStatus.CANCELLED


@virtual_time
async def test_an_overloaded_process_still_answers_for_what_it_accepted() -> None:
    limits = Limits(running_turns=1, expected_wait_seconds=1.0)
    async with World(limits=limits, reply=Reply(stuck=True)) as world:
        process, user = await world.process(), world.user()
        running = (await process.send(user, "first", message_id="a")).turn
        with pytest.raises(PlatformError) as refusal:
            await process.send(user, "second", message_id="b")
        assert (refusal.value.code, refusal.value.retry_after is not None) == (ErrorCode.OVERLOADED, True)
        again = await process.send(user, "first", message_id="a")
        assert (again.duplicate, again.turn.id) == (True, running.id)


@virtual_time
async def test_a_cancel_is_retried_while_the_agent_service_is_unavailable() -> None:
    async with World(reply=Reply(words=("on ",), stuck=True)) as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        turn = (await process.send(user, "go on")).turn
        await device.until_text(turn.id, "on ")
        world.gateway.down = True
        await process.cancel(user)
        await asyncio.sleep(2)
        world.gateway.down = False
        assert (await device.until_end(turn.id))["type"] == "turn.cancelled"
        assert world.gateway.sent[-1].status == "cancelled"


@virtual_time
async def test_a_turn_accepted_while_its_session_was_lost_is_run_by_the_one_that_follows() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        await device.until_end((await process.send(user, "before")).turn.id)
        accepting, proceed = asyncio.Event(), asyncio.Event()

        async def hold(operation: str) -> None:
            if operation == "accept":
                accepting.set()
                await proceed.wait()

        world.database.after = hold
        sending = asyncio.create_task(process.send(user, "meanwhile"))
        await accepting.wait()
        assert device.attachment is not None
        device.attachment.session.lost()
        world.database.after = None
        proceed.set()
        turn = (await sending).turn
        again = await process.device(user)
        await again.until(lambda: world.turn(turn.id).status.ended)
        assert world.turn(turn.id).status is TurnStatus.COMPLETED
        assert (world.sends("meanwhile"), world.charged(user)) == (1, 2 * TOKENS)


@virtual_time
async def test_a_user_who_floods_the_mailbox_is_rate_limited() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        await process.device(user)
        sending = [asyncio.create_task(process.send(user, f"message {number}")) for number in range(100)]
        answers = await asyncio.gather(*sending, return_exceptions=True)
        codes = {answer.code for answer in answers if isinstance(answer, PlatformError)}
        assert codes == {ErrorCode.RATE_LIMITED, ErrorCode.QUEUE_FULL}


@virtual_time
async def test_a_moments_absence_of_the_agent_service_does_not_cost_a_reply_that_goes_on() -> None:
    words = tuple(f"{number} " for number in range(15))
    async with World(reply=Reply(words=words, per_word=2.0)) as world:
        dying, user = await world.process("a"), world.user()
        turn = (await dying.send(user, "count slowly")).turn
        await asyncio.sleep(3)
        dying.kill()
        device = await (await world.process("b")).device(user)
        await asyncio.sleep(18)
        world.gateway.down = True
        await asyncio.sleep(3)
        world.gateway.down = False
        end = await device.until_end(turn.id)
        assert (end["type"], world.reply_of(turn.id)) == ("turn.completed", "".join(words))


@virtual_time
async def test_no_turn_begins_while_something_is_done_that_needs_the_agent_idle() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        steps: list[str] = []

        async def work() -> None:
            steps.append("begun")
            await asyncio.sleep(5)
            steps.append(f"done, {len(world.gateway.sent)} sent")

        working = asyncio.create_task(process.hub.while_idle(user, work))
        await asyncio.sleep(1)
        turn = (await process.send(user, "meanwhile")).turn
        await working
        assert steps == ["begun", "done, 0 sent"]
        with pytest.raises(PlatformError) as refusal:
            await process.hub.while_idle(user, work)
        assert (refusal.value.code, world.turn(turn.id).status) == (ErrorCode.BUSY, TurnStatus.RUNNING)


@virtual_time
async def test_a_reply_that_was_taken_over_waits_longer_for_its_agent_than_a_new_message() -> None:
    async with World() as world:
        dying, user = await world.process("a"), world.user()
        turn = (await dying.send(user, "count")).turn
        await asyncio.sleep(0.7)
        dying.kill()
        world.agents.delay = world.limits.provisioning_seconds + 30
        device = await (await world.process("b")).device(user)
        end = await device.until_end(turn.id)
        assert (end["type"], world.sends("count"), world.charged(user)) == ("turn.completed", 1, TOKENS)


@virtual_time
async def test_a_refusal_of_the_database_is_not_its_own_cause() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        await process.send(user, "one", message_id="a")
        with pytest.raises(PlatformError) as conflict:
            await process.send(user, "two", message_id="a")
        assert conflict.value.__cause__ is not conflict.value


@virtual_time
async def test_a_wait_for_an_end_survives_the_loss_of_the_session() -> None:
    async with World(reply=Reply(words=("word ",) * 300, per_word=0.1)) as world:
        process, user = await world.process("a"), world.user()
        turn = (await process.send(user, "talk")).turn
        waiting = asyncio.create_task(process.hub.wait_for_end(user, turn.id, 600))
        await asyncio.sleep(1)
        (await process.hub.session(user)).lost()
        ended = await waiting
        assert ended is not None
        assert ended.status is TurnStatus.COMPLETED
        assert asyncio.get_running_loop().time() < 1_200


@virtual_time
async def test_a_session_that_cannot_be_opened_keeps_no_instance_from_ending() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()

        async def hang(operation: str) -> None:
            if operation == "open_turns":
                await asyncio.Event().wait()

        world.database.before = hang
        opening = asyncio.create_task(process.device(user))
        await asyncio.sleep(0.1)
        await process.stop()
        with pytest.raises(PlatformError) as refusal:
            await opening
        assert refusal.value.code is ErrorCode.DRAINING


@virtual_time
async def test_a_turn_whose_session_crashed_is_run_although_its_lease_is_renewed_with_the_others() -> None:
    async with World() as world:
        process, user, other = await world.process(), world.user(), world.user()
        world.gateway.plan(Reply(words=("word ",) * 200, per_word=0.5))
        await process.send(other, "talk for long")
        turn = (await process.send(user, "count")).turn
        await asyncio.sleep(0.7)
        (await process.hub.session(user)).lost()
        await asyncio.sleep(60)
        assert (world.turn(turn.id).status, world.sends("count")) == (TurnStatus.COMPLETED, 1)
