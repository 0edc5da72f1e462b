"""What becomes of messages to an agent that its service no longer knows."""

import asyncio
from dataclasses import replace

from server.ports import AgentHandle
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnStatus
from tests.fakes.agent import Reply
from tests.unit.sessions.world import SPOKEN, TOKENS, World, agent_of
from tests.virtual_time import virtual_time


def another(user_id: str) -> AgentHandle:
    return replace(agent_of(user_id), agent_id="agent-anew", conversation_id="conversation-anew")


@virtual_time
async def test_a_message_to_a_deleted_agent_is_answered_by_its_replacement() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.delete(agent_of(user))
        world.agents.replacement = another(user)
        for text in ("one", "two"):
            turn = (await process.send(user, text)).turn
            assert (await device.until_end(turn.id))["type"] == "turn.completed"
            assert [run.agent for run in world.gateway.sent if run.messages[-1].content == text] == [another(user)]
        assert world.agents.gone == [agent_of(user)]
        assert world.charged(user) == 2 * TOKENS


@virtual_time
async def test_an_agent_that_stays_unknown_fails_the_turn_after_one_search() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.delete(agent_of(user))
        turn = (await process.send(user, "hello")).turn
        error = (await device.until_end(turn.id))["turn"]["error"]
        assert (error["code"], error["retryable"]) == (ErrorCode.AGENT_UNAVAILABLE, True)
        assert (world.agents.gone, world.gateway.sent, world.charged(user)) == ([agent_of(user)], [], 0)


@virtual_time
async def test_the_error_of_the_search_for_an_agent_is_the_turns_error() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.delete(agent_of(user))
        found_out = PlatformError(ErrorCode.AGENT_UNAVAILABLE, "This needs an operator.", retry_after=60.0)

        async def find_or_replace(user_id: str, gone: AgentHandle, *, timeout: float) -> AgentHandle:
            raise found_out

        world.agents.find_or_replace = find_or_replace  # type: ignore[method-assign]
        turn = (await process.send(user, "hello")).turn
        error = (await device.until_end(turn.id))["turn"]["error"]
        assert (error["message"], error["retry_after"]) == ("This needs an operator.", 60)


@virtual_time
async def test_a_turn_taken_over_after_its_agent_was_deleted_fails_and_is_not_sent_twice() -> None:
    async with World(reply=Reply(words=("on ",), stuck=True)) as world:
        first, user = await world.process(), world.user()
        device = await first.device(user)
        turn = (await first.send(user, "go on")).turn
        await device.until_text(turn.id, "on ")
        first.kill()
        world.gateway.delete(agent_of(user))
        world.agents.replacement = another(user)
        second = await world.process()
        device = await second.device(user)
        error = (await device.until_end(turn.id))["turn"]["error"]
        assert (error["code"], error["retryable"]) == (ErrorCode.LETTA_UNAVAILABLE, True)
        assert world.sends("go on") == 1
        world.gateway.plan(SPOKEN)
        await asyncio.sleep(15)
        await second.retry(user, turn.id)
        assert (await device.until_end(turn.id, 2))["type"] == "turn.completed"
        assert [run.agent for run in world.gateway.sent] == [agent_of(user), another(user)]


@virtual_time
async def test_a_turn_taken_over_before_its_run_was_known_is_not_sent_to_another_agent() -> None:
    async with World() as world:
        first, user = await world.process(), world.user()
        sending = asyncio.Event()

        async def hold(operation: str) -> None:
            if operation == "set_run":
                sending.set()
                await asyncio.Event().wait()

        world.database.before = hold
        world.gateway.plan(Reply(words=(), stuck=True))
        turn = (await first.send(user, "hello")).turn
        await sending.wait()
        world.database.before = None
        first.kill()
        world.gateway.delete(agent_of(user))
        world.agents.replacement = another(user)
        second = await world.process()
        device = await second.device(user)
        assert (await device.until_end(turn.id))["turn"]["error"]["code"] == ErrorCode.LETTA_UNAVAILABLE
        assert (world.sends("hello"), world.agents.gone) == (1, [agent_of(user)])


@virtual_time
async def test_a_reply_whose_agent_is_deleted_can_still_be_cancelled() -> None:
    async with World(reply=Reply(words=("on ",), stuck=True)) as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        turn = (await process.send(user, "go on")).turn
        await device.until_text(turn.id, "on ")
        world.gateway.delete(agent_of(user))
        await process.cancel(user)
        assert (await device.until_end(turn.id))["type"] == "turn.cancelled"
        assert world.turn(turn.id).status is TurnStatus.CANCELLED
