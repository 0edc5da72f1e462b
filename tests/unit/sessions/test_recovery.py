"""What an attempt does when its agent is busy, away, lost or silent."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from server.ports import AgentBusyError, StreamBrokenError
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.protocol.shapes import TurnError, TurnStatus
from server.sessions.turns.run_recovery import Pauses
from tests.fakes.agent import MODEL_FAILED, Reply
from tests.unit.sessions.device import Device
from tests.unit.sessions.world import SPOKEN, TOKENS, Process, World, agent_of
from tests.virtual_time import now, virtual_time

STUCK = Reply(words=("Well, ",), stuck=True)


async def _failure(device: Device, turn_id: str, attempt: int = 1) -> tuple[str, bool]:
    end = await device.until_end(turn_id, attempt)
    assert end["type"] == "turn.failed"
    return end["turn"]["error"]["code"], end["turn"]["error"]["retryable"]


@virtual_time
async def test_a_turn_out_of_time_fails_keeps_its_text_and_frees_the_agent() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(STUCK)
        turn = (await process.send(user, "hello")).turn
        assert await _failure(device, turn.id) == (ErrorCode.TURN_TIMEOUT, True)
        assert world.reply_of(turn.id) == "Well, "
        elapsed = (now() - world.turn(turn.id).created_at).total_seconds()
        assert elapsed == pytest.approx(240, abs=6)
        assert [run.status for run in world.gateway.sent] == ["cancelled"]


@virtual_time
async def test_the_time_of_a_turn_runs_from_its_send() -> None:
    async with World() as world:
        world.agents.delay = 25.0
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(STUCK)
        turn = (await process.send(user, "hello")).turn
        await _failure(device, turn.id)
        elapsed = (now() - world.turn(turn.id).created_at).total_seconds()
        assert elapsed == pytest.approx(25 + 240, abs=6)


@virtual_time
async def test_a_model_error_fails_the_turn_with_the_agents_error() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(Reply(words=("Oh ",), error=MODEL_FAILED))
        turn = (await process.send(user, "hello")).turn
        assert await _failure(device, turn.id) == (ErrorCode.MODEL_ERROR, True)
        assert world.reply_of(turn.id) == "Oh "


@virtual_time
async def test_a_refused_key_fails_the_turn_and_is_reported_for_repair() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        refused = TurnError(ErrorCode.KEY_REFUSED, "Your key is not accepted.", retryable=False)
        world.gateway.plan(Reply(words=("Let me ",), usage=None, error=refused))
        turn = (await process.send(user, "hello")).turn
        assert await _failure(device, turn.id) == (ErrorCode.KEY_REFUSED, False)
        assert world.agents.refused_keys == [user]
        again = (await process.send(user, "hello again")).turn
        assert (await device.until_end(again.id))["type"] == "turn.completed"
        assert world.agents.refused_keys == [user]


@virtual_time
async def test_a_turn_over_budget_is_stored_unsent_at_no_charge_and_can_be_retried() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        broke = TurnError.by_rule(ErrorCode.BUDGET_EXCEEDED)
        world.gateway.plan(Reply(words=(), usage=None, error=broke))
        turn = (await process.send(user, "hello")).turn
        assert await _failure(device, turn.id) == (ErrorCode.BUDGET_EXCEEDED, True)
        end = device.ends[turn.id, 1]["turn"]
        assert (end["status"], end["user_message"]["status"], end["message"]) == ("unsent", "unsent", None)
        assert world.charged(user) == 0
        await process.retry(user, turn.id)
        assert (await device.until_end(turn.id, 2))["type"] == "turn.completed"


@virtual_time
async def test_a_budget_that_ends_in_the_middle_of_a_reply_fails_the_turn_and_keeps_the_text() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        broke = TurnError.by_rule(ErrorCode.BUDGET_EXCEEDED)
        world.gateway.plan(Reply(words=("Let me ",), usage=None, error=broke))
        turn = (await process.send(user, "hello")).turn
        await _failure(device, turn.id)
        assert (world.turn(turn.id).status, world.reply_of(turn.id)) == (TurnStatus.FAILED, "Let me ")


@virtual_time
async def test_an_agent_service_that_is_down_before_the_send_fails_the_turn_at_no_charge() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.down = True
        turn = (await process.send(user, "hello")).turn
        assert await _failure(device, turn.id) == (ErrorCode.LETTA_UNAVAILABLE, True)
        assert world.charged(user) == 0


@virtual_time
async def test_an_agent_that_is_not_ready_in_time_fails_the_turn_as_unavailable() -> None:
    async with World() as world:
        world.agents.delay = 31.0
        process, user = await world.process(), world.user()
        device = await process.device(user)
        turn = (await process.send(user, "hello")).turn
        assert await _failure(device, turn.id) == (ErrorCode.AGENT_UNAVAILABLE, True)
        assert world.gateway.sent == []


@virtual_time
async def test_a_message_sent_while_the_agent_is_being_made_waits_for_it() -> None:
    async with World() as world:
        world.agents.delay = 20.0
        process, user = await world.process(), world.user()
        device = await process.device(user)
        turn = (await process.send(user, "hello")).turn
        assert (await device.until_end(turn.id))["type"] == "turn.completed"


@pytest.mark.parametrize("seen", [0, 1, 2, 3, 4])
@virtual_time
async def test_a_stream_that_breaks_anywhere_is_finished_from_its_run(seen: int) -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(Reply(SPOKEN.words, first_token=0.5, per_word=0.1, breaks_after=seen))
        turn = (await process.send(user, "count")).turn
        end = await device.until_end(turn.id)
        assert end["type"] == "turn.completed"
        assert device.streamed(turn.id) == end["turn"]["message"]["content"] == SPOKEN.text
        assert (world.sends("count"), world.charged(user)) == (1, TOKENS)


@virtual_time
async def test_a_lost_run_fails_the_turn_with_the_text_so_far() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(Reply(words=("One ", "two "), per_word=1.0, breaks_after=2, stuck=True))
        turn = (await process.send(user, "count")).turn
        await device.until_text(turn.id, "One ")
        world.gateway.forget(world.gateway.sent[0].id)
        assert await _failure(device, turn.id) == (ErrorCode.LETTA_UNAVAILABLE, True)
        assert world.reply_of(turn.id) == "One "


@virtual_time
async def test_an_agent_service_killed_in_the_middle_of_a_reply_fails_the_turn_and_frees_the_conversation() -> None:
    async with World(limits=Limits(turn_seconds=30)) as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        turn = (await process.send(user, "count")).turn
        await device.until_text(turn.id, "One ")
        world.gateway.down = True
        world.gateway.kill()
        await asyncio.sleep(5)
        world.gateway.down = False
        assert await _failure(device, turn.id) == (ErrorCode.LETTA_UNAVAILABLE, True)
        following = (await process.send(user, "again")).turn
        assert (await device.until_end(following.id))["type"] == "turn.completed"


@virtual_time
async def test_a_broken_send_without_any_run_is_never_sent_twice() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(Reply(refusal=StreamBrokenError("reset before the first byte")))
        turn = (await process.send(user, "hello")).turn
        assert await _failure(device, turn.id) == (ErrorCode.LETTA_UNAVAILABLE, True)
        assert world.gateway.sent == []


async def _left_behind(world: World, user: str) -> str:
    """A run that holds the user's conversation, begun by nobody we know."""
    world.gateway.plan(STUCK)
    async with world.gateway.send(agent_of(user), ()):
        return world.gateway.sent[-1].id


@virtual_time
async def test_a_conversation_held_by_a_strangers_run_is_freed_after_five_seconds() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        held_by = await _left_behind(world, user)
        await asyncio.sleep(10)
        turn = (await process.send(user, "hello")).turn
        assert (await device.until_end(turn.id))["type"] == "turn.completed"
        assert world.gateway.cancels == [(agent_of(user), held_by)]


@virtual_time
async def test_a_conversation_that_stays_busy_fails_the_turn() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(*[Reply(refusal=AgentBusyError(None))] * 3)
        turn = (await process.send(user, "hello")).turn
        assert await _failure(device, turn.id) == (ErrorCode.AGENT_UNAVAILABLE, True)


@virtual_time
async def test_an_unknown_run_begun_since_the_turn_was_started_is_adopted() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.agents.delay = 1.0
        turn = (await process.send(user, "count")).turn
        await asyncio.sleep(0.5)
        async with world.gateway.send(agent_of(user), ()):
            assert (await device.until_end(turn.id))["type"] == "turn.completed"
        assert device.text(turn.id) == SPOKEN.text
        assert len(world.gateway.sent) == 1


@virtual_time
async def test_the_run_of_an_earlier_attempt_is_not_adopted_by_the_retry() -> None:
    async with World(pauses=Pauses(busy=1.0)) as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(STUCK)
        turn = (await process.send(user, "hello")).turn
        await device.until_text(turn.id, "Well, ")
        world.gateway.down = True
        await process.cancel(user)
        await device.until_end(turn.id)
        world.gateway.down = False
        await process.retry(user, turn.id)
        assert (await device.until_end(turn.id, 2))["type"] == "turn.completed"
        assert device.text(turn.id, 2) == SPOKEN.text


@virtual_time
async def test_a_turn_that_the_agent_does_not_remember_is_sent_to_it_once() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(Reply(words=("Nice to ",), error=MODEL_FAILED))
        for text in ("I am Ann", "hello", "bye"):
            await device.until_end((await process.send(user, text)).turn.id)
        first, second, third = ([message.content for message in run.messages] for run in world.gateway.sent)
        assert first == ["I am Ann"]
        assert (len(second), second[0], second[-1]) == (3, "I am Ann", "hello")
        assert "Nice to " in second[1]
        assert third == ["bye"]


@virtual_time
async def test_a_turn_that_the_agent_does_not_remember_is_sent_again_if_that_turn_failed() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(Reply(words=(), error=MODEL_FAILED), Reply(words=(), error=MODEL_FAILED))
        for text in ("one", "two", "three"):
            await device.until_end((await process.send(user, text)).turn.id)
        assert [message.content for message in world.gateway.sent[-1].messages] == ["one", "two", "three"]


@virtual_time
async def test_a_reply_is_stored_also_while_its_price_cannot_be_learned() -> None:
    async with World() as world:
        world.prices.known = False
        process, user = await world.process(), world.user()
        device = await process.device(user)
        turn = (await process.send(user, "count")).turn
        assert (await device.until_end(turn.id))["type"] == "turn.completed"
        assert (world.turn(turn.id).cost, world.charged(user)) == (None, TOKENS)


@virtual_time
async def test_the_run_of_an_ended_turn_is_never_adopted_by_the_next_one() -> None:
    """It is stored slowly, the next turn begins at once, and the process dies before it is sent."""
    async with World() as world:
        first, user = await world.process("a"), world.user()
        device = await first.device(user)

        async def slow(operation: str) -> None:
            if operation == "set_run":
                await asyncio.sleep(3)

        world.database.before = slow
        world.gateway.plan(Reply.of("the first"), Reply.of("the second"))
        one, two = (await first.send(user, "one")).turn, (await first.send(user, "two")).turn
        world.agents.delay = 1.0
        await device.until(lambda: device.types[-1:] == ["turn.started"] and len(device.ends) == 1)
        first.kill()
        device = await (await world.process("b")).device(user)
        await device.until_end(two.id)
        assert [world.reply_of(turn.id) for turn in (one, two)] == ["the first", "the second"]


@virtual_time
async def test_a_recovery_survives_a_database_that_is_briefly_unavailable() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(Reply(SPOKEN.words, breaks_after=0))
        failures = iter((True, True, True))

        async def away(operation: str) -> None:
            if operation in ("turn_by_run", "set_run") and next(failures, False):
                raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

        world.database.before = away
        turn = (await process.send(user, "count")).turn
        assert (await device.until_end(turn.id))["type"] == "turn.completed"
        assert device.text(turn.id) == SPOKEN.text


@pytest.mark.parametrize("operation", ["runs_within", "run", "reply"])
@virtual_time
async def test_a_recovery_survives_an_agent_service_that_is_briefly_unavailable(operation: str) -> None:
    async with World() as world:
        first, user = await world.process("a"), world.user()
        turn = (await first.send(user, "count")).turn
        await _killed_after(first, 0.05 if operation == "runs_within" else 0.65)
        world.database.turns[turn.id].turn = replace(world.turn(turn.id), run_id=None)
        second = await world.process("b")
        second.gateway.fail_once = operation
        device = await second.device(user)
        assert (await device.until_end(turn.id))["type"] == "turn.completed"
        assert (device.text(turn.id), world.sends("count")) == (SPOKEN.text, 1)
        assert second.gateway.fail_once is None


async def _killed_after(process: Process, seconds: float) -> None:
    await asyncio.sleep(seconds)
    process.kill()


@virtual_time
async def test_a_turn_found_long_after_its_time_is_still_finished_from_its_run() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        turn = (await process.send(user, "count")).turn
        await _killed_after(process, 0.65)
        await asyncio.sleep(timedelta(hours=2).total_seconds())
        device = await (await world.process("b")).device(user)
        assert (await device.until_end(turn.id))["type"] == "turn.completed"
        assert (device.text(turn.id), world.sends("count")) == (SPOKEN.text, 1)


@virtual_time
async def test_a_turn_never_sent_and_found_long_after_gets_its_full_time() -> None:
    async with World() as world:
        world.agents.delay = 5.0
        process, user = await world.process(), world.user()
        turn = (await process.send(user, "count")).turn
        await _killed_after(process, 1.0)
        await asyncio.sleep(timedelta(hours=2).total_seconds())
        slow = Reply(SPOKEN.words, first_token=100.0)
        world.gateway.plan(slow)
        device = await (await world.process("b")).device(user)
        assert (await device.until_end(turn.id))["type"] == "turn.completed"
        assert world.sends("count") == 1
