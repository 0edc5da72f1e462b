"""Tools that are set to require an approval at Letta: their calls are denied, and do not block the user's agent."""

import json
import uuid
from collections.abc import AsyncIterator

import aiohttp
import pytest

from server.ports import (
    AgentHandle,
    RunEnded,
    RunStarted,
    ToolCalled,
    ToolReturned,
    UsageReported,
)
from server.protocol.shapes import TurnStatus
from tests.letta_world import LettaWorld, letta_world, roles_and_texts, text_of
from tests.stack.chat_client import ChatUser
from tests.stack.own_server import ServerProcess
from tests.stack.provisioning_lab import Lab, open_lab
from tests.stack.running_stack import RunningStack

REMEMBER = 'memory_insert {"label": "human", "new_string": "Sails"}'
DENIED = "there is nobody who could give it"


@pytest.fixture(scope="module")
async def world(stack_env: dict[str, str]) -> AsyncIterator[LettaWorld]:
    async with letta_world(stack_env) as opened:
        yield opened


@pytest.fixture
async def agent(world: LettaWorld) -> AgentHandle:
    """An agent whose `memory_insert` requires an approval."""
    made = await world.stranger()
    await require_approval(world, made)
    return made


@pytest.fixture
async def lab(stack_env: dict[str, str]) -> AsyncIterator[Lab]:
    async with open_lab(stack_env) as lab:
        yield lab


async def require_approval(
    where: LettaWorld | Lab, agent: AgentHandle, tool: str = "memory_insert", *, required: bool = True
) -> None:
    client = where.client if isinstance(where, LettaWorld) else where.letta
    path = f"/v1/agents/{agent.agent_id}/tools/approval/{tool}"
    await client.as_member(agent.member_id).patch(path, cast_to=object, body={"requires_approval": required})


async def agent_of(lab: Lab, user: ChatUser) -> AgentHandle:
    handle = (await lab.holdings(user.id)).account.handle
    assert handle is not None
    return handle


async def leave_pending(world: LettaWorld, agent: AgentHandle, text: str = f"CALL {REMEMBER}") -> None:
    """Leave a call that waits for an approval, as after a conversation in Letta's own user interface."""
    conversations = world.client.as_member(agent.member_id).conversations
    stream = await conversations.messages.create(
        agent.conversation_id, messages=[{"role": "user", "content": text}], streaming=True, background=False
    )
    async for _ in stream:
        pass


async def test_a_tool_that_needs_an_approval_is_denied_and_the_reply_goes_on(
    world: LettaWorld, agent: AgentHandle
) -> None:
    events = await world.say(agent, f"CALL {REMEMBER}")
    called, returned = [event for event in events if isinstance(event, ToolCalled | ToolReturned)]
    assert isinstance(returned, ToolReturned)
    assert (called.call_id, called.name, returned.status) == (returned.call_id, "memory_insert", "denied")
    assert DENIED in text_of(events)
    assert events[-1] == RunEnded(TurnStatus.COMPLETED)
    assert [type(event) for event in events].count(RunStarted) == 1
    assert next(event for event in reversed(events) if isinstance(event, UsageReported)).usage.model_calls == 2
    assert "Sails" not in str(await world.memory.blocks(agent))
    assert text_of(await world.say(agent, "ECHO free")) == "free"


async def test_a_run_with_a_denied_call_is_recovered_as_it_was_streamed(world: LettaWorld, agent: AgentHandle) -> None:
    live = await world.say(agent, f"CALL {REMEMBER}")
    await world.say(agent, "ECHO another")
    assert isinstance(live[0], RunStarted)
    run = await world.gateway.run(agent, live[0].run_id)
    assert run is not None
    assert (run.id, run.status) == (live[0].run_id, "completed")
    reply = await world.gateway.reply(agent, live[0].run_id)
    assert text_of(reply) == text_of(live)
    assert [event for event in reply if isinstance(event, UsageReported)] == [
        event for event in live if isinstance(event, UsageReported)
    ][-1:]
    assert reply[-1] == live[-1]


async def test_of_two_calls_the_one_without_approval_is_executed(world: LettaWorld, agent: AgentHandle) -> None:
    fact = uuid.uuid4().hex
    calls = [["memory_insert", {"label": "human", "new_string": fact}], ["archival_memory_insert", {"content": fact}]]
    events = await world.say(agent, f"CALLS {json.dumps(calls)}")
    statuses = {event.name: event.status for event in events if isinstance(event, ToolReturned)}
    assert statuses == {"memory_insert": "denied", "archival_memory_insert": "success"}
    assert events[-1] == RunEnded(TurnStatus.COMPLETED)
    assert [passage.text for passage in (await world.memory.passages(agent, fact, 10, None)).data] == [fact]
    assert fact not in str(await world.memory.blocks(agent))


async def test_two_calls_that_need_an_approval_are_both_denied(world: LettaWorld, agent: AgentHandle) -> None:
    await require_approval(world, agent, "archival_memory_insert")
    calls = [["memory_insert", {"label": "human", "new_string": "x"}], ["archival_memory_insert", {"content": "x"}]]
    events = await world.say(agent, f"CALLS {json.dumps(calls)}")
    assert [event.status for event in events if isinstance(event, ToolReturned)] == ["denied"] * 2
    assert len([event for event in events if isinstance(event, ToolCalled)]) == 2
    assert events[-1] == RunEnded(TurnStatus.COMPLETED)
    assert text_of(await world.say(agent, "ECHO free")) == "free"


@pytest.mark.parametrize("again", [1, 2])
async def test_a_pending_call_is_denied_with_the_next_message(
    world: LettaWorld, agent: AgentHandle, again: int
) -> None:
    await leave_pending(world, agent)
    text = f"ECHO {uuid.uuid4()}"
    events = await world.say(agent, *["ECHO what I said before"] * (again - 1), text)
    assert text_of(events) == text.removeprefix("ECHO ")
    assert [event.status for event in events if isinstance(event, ToolReturned)] == ["denied"]
    assert isinstance(events[0], RunStarted)
    assert text_of(await world.gateway.reply(agent, events[0].run_id)) == text_of(events)
    (asked,) = [seen for seen in world.script.seen if seen.text == text]
    assert [role for role, _ in roles_and_texts(asked)][-2 - again :] == ["assistant", "tool", *["user"] * again]


async def test_an_agent_that_repeats_a_denied_call_is_stopped_and_not_blocked(
    world: LettaWorld, agent: AgentHandle
) -> None:
    events = await world.say(agent, f"CALL ENDLESSLY {REMEMBER}")
    end = events[-1]
    assert isinstance(end, RunEnded)
    assert end.error is not None
    assert (end.status, end.error.retryable) == (TurnStatus.FAILED, True)
    assert [event.status for event in events if isinstance(event, ToolReturned)] == ["denied"] * 5
    assert text_of(await world.say(agent, "ECHO free")) == "free"


async def test_a_denied_tool_call_is_published_and_the_conversation_goes_on(
    lab: Lab, stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser
) -> None:
    await ada.say("ECHO before")
    agent = await agent_of(lab, ada)
    await require_approval(lab, agent)
    async with ada.connect() as device:
        ack = await device.say(f"CALL {REMEMBER}")
        end = await device.end_of(ack["turn_id"])
        assert end["type"] == "turn.completed"
        assert DENIED in end["turn"]["message"]["content"]
        assert end["turn"]["usage"]["model_calls"] == 2
        (returned,) = [frame for frame in device.frames if frame["type"] == "tool.returned"]
        assert (returned["name"], returned["status"]) == ("memory_insert", "denied")
    assert (await ada.say("ECHO next"))["message"]["content"] == "next"
    log = (stack.data_dir / "logs" / "server.log").read_text(encoding="utf-8")
    assert any("tool.denied" in line and agent.conversation_id in line for line in log.splitlines())


async def test_a_turn_that_a_crash_left_waiting_for_an_approval_fails_and_its_retry_completes(
    own_stack: RunningStack, own_server: ServerProcess, http: aiohttp.ClientSession, bob: ChatUser
) -> None:
    await bob.say("ECHO before")
    async with open_lab(own_stack.env) as lab:
        await require_approval(lab, await agent_of(lab, bob))
    gate = uuid.uuid4().hex
    async with bob.connect() as device:
        ack = await device.say(f"CALL AT {gate} {REMEMBER}")
        await own_stack.at_gate(http, gate)
    own_server.kill()
    await own_stack.open_gate(http, gate)
    await own_server.restart()
    turn = await bob.ended(ack["turn_id"])
    assert (turn["status"], turn["error"]["code"], turn["error"]["retryable"]) == ("failed", "model_error", True)
    assert (await bob.call("POST", f"/chat/turns/{ack['turn_id']}/retry"))[0] == 200
    turn = await bob.ended(ack["turn_id"])
    assert turn["status"] == "completed"
    assert DENIED in turn["message"]["content"]
