"""The contract of AgentGateway: turns, runs that outlive their readers, cancelling and recovery, in memory and on a
real Letta."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from server.ports import (
    AgentBusyError,
    AgentEvent,
    AgentHandle,
    OutgoingMessage,
    RunEnded,
    RunStarted,
    TextDelta,
    ToolCalled,
    ToolReturned,
    UsageReported,
)
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnStatus
from tests.contract.agents import AgentWorld, ScriptedAgents
from tests.letta_world import letta_world, read_until, text_of
from tests.stack.chat_client import TIMEOUT

HOUR = 3600.0
NO_RUN = "run-00000000-0000-4000-8000-000000000000"


@pytest.fixture(params=["scripted", "letta"], scope="module")
async def world(request: pytest.FixtureRequest) -> AsyncIterator[AgentWorld]:
    if request.param == "scripted":
        scripted = ScriptedAgents()
        yield scripted
        await scripted.aclose()
    else:
        async with letta_world(request.getfixturevalue("stack_env")) as real:
            yield real


@pytest.fixture
async def agent(world: AgentWorld) -> AgentHandle:
    return await world.fresh()


async def turn(world: AgentWorld, agent: AgentHandle, *texts: str) -> list[AgentEvent]:
    async with world.gateway.send(agent, [OutgoingMessage("user", text) for text in texts]) as events:
        return [event async for event in events]


def run_of(events: Sequence[AgentEvent]) -> str:
    assert isinstance(events[0], RunStarted)
    return events[0].run_id


def kinds(events: Sequence[AgentEvent]) -> list[type]:
    """The kinds of events, runs of text counted once."""
    seen: list[type] = []
    for event in events:
        if not (seen and seen[-1] is TextDelta and type(event) is TextDelta):
            seen.append(type(event))
    return seen


async def test_a_reply_is_between_the_start_and_the_end_of_its_run(world: AgentWorld, agent: AgentHandle) -> None:
    events = await turn(world, agent, "ECHO one two three")
    assert kinds(events) == [RunStarted, TextDelta, UsageReported, RunEnded]
    assert text_of(events) == "one two three"
    assert events[-1] == RunEnded(TurnStatus.COMPLETED)


async def test_text_is_delivered_while_the_model_pauses(world: AgentWorld, agent: AgentHandle) -> None:
    name, gate = world.gate()
    async with world.gateway.send(agent, [OutgoingMessage("user", f"GATE {name} 1 3")]) as events:
        early = await read_until(events, "w0")
        gate.opened.set()
        rest = [event async for event in events]
    assert isinstance(early[0], RunStarted)
    assert text_of(rest) == " w1 w2 w3"
    assert len({event.message_id for event in [*early, *rest] if isinstance(event, TextDelta)}) == 1


async def test_a_tool_call_is_emitted_with_its_return(world: AgentWorld, agent: AgentHandle) -> None:
    events = await turn(world, agent, 'CALL memory_insert {"label": "human", "new_string": "Likes tea"}')
    assert kinds(events) == [RunStarted, ToolCalled, ToolReturned, TextDelta, UsageReported, RunEnded]
    (called,) = [event for event in events if isinstance(event, ToolCalled)]
    (returned,) = [event for event in events if isinstance(event, ToolReturned)]
    assert (called.call_id, called.name) == (returned.call_id, returned.name)
    assert (returned.status, returned.changed_memory) == ("success", True)


CALLS = (
    'CALLS [["memory_insert", {"label": "human", "new_string": "Likes cats"}], '
    '["archival_memory_insert", {"content": "alpha"}], ["memory_insert", {"label": "nobody", "new_string": "x"}], '
    '["conversation_search", {"query": "cats"}]]'
)


async def test_every_tool_call_of_one_reply_is_executed_and_its_return_emitted(
    world: AgentWorld, agent: AgentHandle
) -> None:
    events = await turn(world, agent, CALLS)
    called = [event for event in events if isinstance(event, ToolCalled)]
    returned = [event for event in events if isinstance(event, ToolReturned)]
    assert [(call.call_id, call.name) for call in called] == [(one.call_id, one.name) for one in returned]
    assert len({call.call_id for call in called}) == 4
    assert [(one.name, one.status, one.changed_memory) for one in returned] == [
        ("memory_insert", "success", True),
        ("archival_memory_insert", "success", True),
        ("memory_insert", "error", False),
        ("conversation_search", "success", False),
    ]
    assert text_of(events) == "done: 4 results"


async def test_a_failed_model_ends_the_run_with_an_error(world: AgentWorld, agent: AgentHandle) -> None:
    events = await turn(world, agent, "ERR 400")
    end = events[-1]
    assert isinstance(end, RunEnded)
    assert end.status is TurnStatus.FAILED
    assert end.error is not None
    assert end.error.code is ErrorCode.MODEL_ERROR
    run = await world.gateway.run(agent, run_of(events))
    assert run is not None
    assert run.status == "failed"


async def test_several_messages_are_one_turn(world: AgentWorld, agent: AgentHandle) -> None:
    events = await turn(world, agent, "ECHO not this", "ECHO but this")
    assert text_of(events) == "but this"


async def test_a_conversation_is_unlocked_once_its_stream_was_read(world: AgentWorld, agent: AgentHandle) -> None:
    for word in ("one", "two", "three"):
        assert text_of(await turn(world, agent, f"ECHO {word}")) == word


async def test_a_busy_conversation_refuses_and_names_its_run(world: AgentWorld, agent: AgentHandle) -> None:
    name, gate = world.gate()
    async with world.gateway.send(agent, [OutgoingMessage("user", f"GATE {name} 1 3")]) as events:
        started = await anext(events)
        with pytest.raises(AgentBusyError) as busy:
            await turn(world, agent, "ECHO too early")
        gate.opened.set()
        rest = [event async for event in events]
    assert busy.value.run_id == run_of([started])
    assert text_of(rest) == "w0 w1 w2 w3"


async def test_conversations_do_not_wait_for_each_other(world: AgentWorld, agent: AgentHandle) -> None:
    name, gate = world.gate()
    async with world.gateway.send(agent, [OutgoingMessage("user", f"GATE {name} 1 3")]) as events:
        await anext(events)
        assert text_of(await turn(world, await world.fresh(), "ECHO meanwhile")) == "meanwhile"
        gate.opened.set()
        assert text_of([event async for event in events]) == "w0 w1 w2 w3"


async def test_a_run_outlives_its_reader_and_is_recorded_completely(world: AgentWorld, agent: AgentHandle) -> None:
    name, gate = world.gate()
    async with world.gateway.send(agent, [OutgoingMessage("user", f"GATE {name} 1 3")]) as events:
        run_id = run_of([await anext(events)])
        await gate.reached.wait()
    left = await world.gateway.run(agent, run_id)
    assert left is not None
    assert left.status == "running"
    gate.opened.set()
    await world.ended(agent, run_id)
    reply = await world.gateway.reply(agent, run_id)
    assert text_of(reply) == "w0 w1 w2 w3"
    assert reply[-1] == RunEnded(TurnStatus.COMPLETED)


@pytest.mark.parametrize(
    "text",
    [
        "ECHO Hello, Wörld — as it was said.",
        'CALL memory_insert {"label": "human", "new_string": "Likes cats"}',
        CALLS,
        "ERR 500",
    ],
)
async def test_the_record_of_a_run_equals_its_stream(world: AgentWorld, agent: AgentHandle, text: str) -> None:
    events = await turn(world, agent, text)
    reply = await world.gateway.reply(agent, run_of(events))
    assert kinds(reply) == kinds(events)
    assert text_of(reply) == text_of(events)
    told = (RunStarted, ToolCalled, ToolReturned, UsageReported, RunEnded)
    assert [event for event in reply if isinstance(event, told)] == [
        event for event in events if isinstance(event, told)
    ]
    assert {e.message_id for e in reply if isinstance(e, TextDelta)} == {
        e.message_id for e in events if isinstance(e, TextDelta)
    }


async def test_a_cancel_ends_a_run_that_waits(world: AgentWorld, agent: AgentHandle) -> None:
    name, gate = world.gate()
    async with world.gateway.send(agent, [OutgoingMessage("user", f"GATE {name} 1 3")]) as events:
        run_id = run_of([await anext(events)])
        await gate.reached.wait()
        await world.gateway.cancel(agent, run_id)
        run = await world.gateway.run(agent, run_id)
        assert run is not None
        assert run.status == "cancelled"
    assert text_of(await turn(world, agent, "ECHO free again")) == "free again"
    gate.opened.set()


async def test_a_cancel_without_an_active_run_is_not_an_error(world: AgentWorld, agent: AgentHandle) -> None:
    await world.gateway.cancel(agent, None)
    await turn(world, agent, "ECHO done")
    await world.gateway.cancel(agent, None)


async def test_the_runs_of_the_last_seconds_are_listed_oldest_first(world: AgentWorld, agent: AgentHandle) -> None:
    runs = [run_of(await turn(world, agent, f"ECHO {word}")) for word in ("one", "two", "three")]
    assert [run.id for run in await world.gateway.runs_within(agent, HOUR)] == runs
    assert await world.gateway.runs_within(agent, -HOUR) == []
    assert await world.gateway.runs_within(await world.fresh(), HOUR) == []


async def test_an_unknown_run_is_none(world: AgentWorld, agent: AgentHandle) -> None:
    assert await world.gateway.run(agent, NO_RUN) is None
    with pytest.raises(PlatformError) as unknown:
        await world.gateway.reply(agent, NO_RUN)
    assert unknown.value.code is ErrorCode.NOT_FOUND


async def test_another_users_run_is_not_visible(world: AgentWorld, agent: AgentHandle) -> None:
    run_id = run_of(await turn(world, agent, "ECHO private"))
    stranger = await world.stranger()
    assert await world.gateway.run(stranger, run_id) is None
    with pytest.raises(PlatformError):
        await world.gateway.reply(stranger, run_id)


async def test_leaving_before_the_first_event_does_not_stop_the_run(world: AgentWorld, agent: AgentHandle) -> None:
    async with world.gateway.send(agent, [OutgoingMessage("user", "ECHO unheard")]):
        pass
    async with asyncio.timeout(TIMEOUT):
        while not (runs := await world.gateway.runs_within(agent, HOUR)):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.05)
    await world.ended(agent, runs[0].id)
    assert text_of(await world.gateway.reply(agent, runs[0].id)) == "unheard"
