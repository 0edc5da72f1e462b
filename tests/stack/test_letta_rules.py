"""The rules of `letta_developer_prompt.md`, each checked on a real Letta, without our adapter where it hides them."""

import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from letta_client import APIStatusError, AsyncLetta
from pydantic import SecretStr

from server.adapters.letta.client import get_json, post_json
from server.adapters.letta.probe import LettaInspection, LettaProbe, is_supported
from server.adapters.letta.template import AGENT_TYPE, TOOLS, model_config
from server.ports import (
    AgentBusyError,
    AgentEvent,
    AgentHandle,
    OutgoingMessage,
    RunEnded,
    RunStarted,
    ToolCalled,
    UsageReported,
)
from server.protocol.shapes import TurnStatus
from tests.letta_world import LettaWorld, letta_world, prompt_of, read_until, roles_and_texts, text_of
from tests.stack.patches import applied_patches


@pytest.fixture(scope="module")
async def world(stack_env: dict[str, str]) -> AsyncIterator[LettaWorld]:
    async with letta_world(stack_env) as opened:
        yield opened


@pytest.fixture
async def agent(world: LettaWorld) -> AgentHandle:
    return await world.fresh()


@pytest.fixture
def member(world: LettaWorld) -> AsyncLetta:
    """The SDK as the agent's own member."""
    return world.client.as_member(world.agent.member_id)


async def refused(call: Any) -> int:
    """The HTTP status with which a call is refused."""
    with pytest.raises(APIStatusError) as error:
        await call
    return error.value.status_code


def run_of(events: list[AgentEvent]) -> str:
    assert isinstance(events[0], RunStarted)
    return events[0].run_id


async def new_member(world: LettaWorld) -> AsyncLetta:
    """A member of a new, empty organization."""
    name = str(uuid.uuid4())
    organization = await world.directory.create_organization(name)
    return world.client.as_member(await world.directory.ensure_member(organization, name, search=False))


def wanted_agent(world: LettaWorld, **changed: object) -> Mapping[str, object]:
    config = dict(model_config(world.template))
    return {"name": "agent", "agent_type": AGENT_TYPE, "llm_config": config, "tools": list(TOOLS), **changed}


# The server


async def test_rule_version(world: LettaWorld) -> None:
    await LettaProbe(world.client).ping()
    assert is_supported(await LettaInspection(world.client).version())
    assert await LettaInspection(world.client).conversations() == "locked"


async def test_rule_password(world: LettaWorld, member: AsyncLetta) -> None:
    assert await LettaInspection(world.client).accepts_password()
    assert not await LettaInspection(world.client).is_open()
    assert await refused(get_json(member.with_options(api_key="wrong"), "/v1/agents/")) == 401


async def test_rule_member_header(world: LettaWorld, member: AsyncLetta) -> None:
    assert not await LettaInspection(world.client).has_default_actor()
    assert await refused(get_json(world.client.as_admin(), "/v1/agents/")) == 404
    unknown = world.client.as_member(f"user-{uuid.uuid4()}")
    assert await refused(get_json(unknown, "/v1/agents/")) == 404


# One user's agent


async def test_rule_organization_per_user(world: LettaWorld, agent: AgentHandle) -> None:
    run_id = run_of(await world.say(agent, "ECHO private"))
    stranger = world.client.as_member((await world.stranger()).member_id)
    for path in (f"/v1/agents/{agent.agent_id}", f"/v1/runs/{run_id}", f"/v1/conversations/{agent.conversation_id}"):
        assert await refused(get_json(stranger, path)) == 404
    message = {"messages": [{"role": "user", "content": "ECHO mine now"}], "streaming": False}
    assert await refused(post_json(stranger, f"/v1/conversations/{agent.conversation_id}/messages", message)) == 404
    assert await refused(post_json(stranger, f"/v1/conversations/{agent.conversation_id}/cancel")) == 404


async def test_rule_base_tools(world: LettaWorld) -> None:
    newcomer = await new_member(world)
    assert await refused(post_json(newcomer, "/v1/agents/", wanted_agent(world))) >= 400
    await post_json(newcomer, "/v1/tools/add-base-tools")
    await post_json(newcomer, "/v1/tools/add-base-tools")
    assert {tool.name for tool in (await newcomer.tools.list(names=list(TOOLS))).items} == set(TOOLS)


async def test_rule_own_provider(world: LettaWorld, agent: AgentHandle) -> None:
    stranger = await world.stranger(key="sk-theirs")
    for who, key in ((agent, "sk-mine"), (agent, "sk-mine-renewed"), (stranger, "sk-theirs")):
        await world.directory.ensure_provider(who.member_id, SecretStr(key), world.template)
        await world.say(who, f"ECHO billed to {key}")
        seen = world.asked(f"billed to {key}")
        assert (seen.authorization, seen.user) == (f"Bearer {key}", who.member_id)


async def test_rule_explicit_model(member: AsyncLetta) -> None:
    short = {"name": "agent", "agent_type": AGENT_TYPE, "model": "litellm_proxy/gpt-4"}
    assert await refused(post_json(member, "/v1/agents/", short)) == 404


async def test_rule_plain_text(world: LettaWorld, agent: AgentHandle, member: AsyncLetta) -> None:
    assert (await member.agents.retrieve(agent.agent_id)).agent_type == AGENT_TYPE
    events = await world.say(agent, "ECHO plainly said")
    assert text_of(events) == "plainly said"
    assert "send_message" not in world.asked("plainly said").tools


async def test_rule_found_by_tag(world: LettaWorld) -> None:
    user_id = str(uuid.uuid4())
    organization = await world.directory.create_organization(user_id)
    member_id = await world.directory.ensure_member(organization, user_id, search=False)
    await world.directory.ensure_tools(member_id)
    made = await world.directory.ensure_agent(member_id, user_id, "Ada", world.template)
    member = world.client.as_member(member_id)
    assert [found.id for found in (await member.agents.list(tags=[f"user:{user_id}"])).items] == [made]
    assert (await member.agents.list(tags=["user:somebody-else"])).items == []


# Memory


async def test_rule_recompile(world: LettaWorld, member: AsyncLetta) -> None:
    agent = await world.stranger()
    blocks = world.client.as_member(agent.member_id).agents.blocks
    await blocks.update("human", agent_id=agent.agent_id, value="The secret word is larch.")
    await world.say(agent, "ECHO before")
    assert "larch" not in prompt_of(world.asked("ECHO before"))
    await world.memory.update_block(agent, "human", "The secret word is rowan.")
    await world.say(agent, "ECHO changed by our API")
    assert "rowan" in prompt_of(world.asked("changed by our API"))
    await world.say(agent, 'CALL memory_insert {"label": "human", "new_string": "Likes alder."}')
    await world.say(agent, "ECHO changed by a tool")
    assert "Likes alder." in prompt_of(world.asked("changed by a tool"))


async def test_rule_block_limit(world: LettaWorld) -> None:
    agent = await world.stranger()
    blocks = world.client.as_member(agent.member_id).agents.blocks
    limit = (await blocks.retrieve("human", agent_id=agent.agent_id)).limit
    assert limit is not None
    grown = await blocks.update("human", agent_id=agent.agent_id, value="x" * (limit + 1))
    assert len(grown.value) == limit + 1


async def test_rule_archive_is_literal(world: LettaWorld) -> None:
    agent = await world.stranger()
    asked = len(world.script.seen)
    passages = world.client.as_member(agent.member_id).agents.passages
    for text in ("Ada keeps bees", "Ada plays chess"):
        await passages.create(agent.agent_id, text=text)
    found = await world.memory.passages(agent, "bees", 10, None)
    assert [passage.text for passage in found.data] == ["Ada keeps bees"]
    assert (await world.memory.passages(agent, "insects", 10, None)).data == ()
    assert len(world.script.seen) == asked


# Turns


async def test_rule_conversation(world: LettaWorld, agent: AgentHandle) -> None:
    name, gate = world.gate()
    async with world.gateway.send(agent, [OutgoingMessage("user", f"GATE {name}")]) as events:
        running = run_of([await anext(events)])
        with pytest.raises(AgentBusyError) as busy:
            await world.say(agent, "ECHO second")
        gate.opened.set()
        assert [event async for event in events]
    assert busy.value.run_id == running


async def test_rule_foreground(world: LettaWorld, agent: AgentHandle) -> None:
    name, gate = world.gate()
    async with world.gateway.send(agent, [OutgoingMessage("user", f"GATE {name} 2 2")]) as events:
        assert run_of(await read_until(events, "w0 w1"))
        gate.opened.set()
        assert text_of([event async for event in events]) == " w2 w3"


async def test_rule_read_to_the_end(world: LettaWorld, agent: AgentHandle) -> None:
    for number in range(5):
        assert text_of(await world.say(agent, f"ECHO at once {number}")) == f"at once {number}"


async def test_rule_no_otid(world: LettaWorld, agent: AgentHandle) -> None:
    first, second = [await world.say(agent, "ECHO the same again") for _ in range(2)]
    assert run_of(first) != run_of(second)
    assert text_of(first) == text_of(second)


async def test_rule_several_messages(world: LettaWorld, agent: AgentHandle) -> None:
    messages = [
        OutgoingMessage("user", "What I said before."),
        OutgoingMessage("assistant", "The reply so far (interrupted)"),
        OutgoingMessage("user", "ECHO one answer"),
    ]
    async with world.gateway.send(agent, messages) as events:
        assert text_of([event async for event in events]) == "one answer"
    assert roles_and_texts(world.asked("one answer")) == [(message.role, message.content) for message in messages]


async def test_rule_parallel_calls(world: LettaWorld, agent: AgentHandle) -> None:
    calls = 'CALLS [["archival_memory_insert", {"content": "one"}], ["archival_memory_insert", {"content": "two"}]]'
    events = await world.say(agent, calls)
    assert text_of(events) == "done: 2 results"
    path = f"/v1/runs/{run_of(events)}/messages"
    messages = await get_json(world.client.as_member(agent.member_id), path)
    (returned,) = [one for one in messages if one["message_type"] == "tool_return_message"]
    called = [event.call_id for event in events if isinstance(event, ToolCalled)]
    assert [one["tool_call_id"] for one in returned["tool_returns"]] == called
    assert not any("name" in one for one in returned["tool_returns"])


async def test_rule_errors_in_200(world: LettaWorld, agent: AgentHandle) -> None:
    run_id = run_of(await world.say(agent, "ERR 400"))
    record = await get_json(world.client.as_member(agent.member_id), f"/v1/runs/{run_id}")
    assert record["status"] == "failed"
    assert record["metadata"]["error"]["error_type"] == "llm_error"
    assert "scripted error 400" in record["metadata"]["error"]["detail"]


async def test_rule_stop_reason_decides(world: LettaWorld, agent: AgentHandle) -> None:
    events = await world.say(agent, "DROP")
    end = events[-1]
    assert isinstance(end, RunEnded)
    assert end.status is TurnStatus.FAILED
    record = await get_json(world.client.as_member(agent.member_id), f"/v1/runs/{run_of(events)}")
    assert (record["status"], record["stop_reason"]) == ("completed", "llm_api_error")


async def test_rule_forgets_failed_turns(world: LettaWorld, agent: AgentHandle) -> None:
    await world.say(agent, "ECHO kept")
    await world.say(agent, "ERR 400")
    await world.say(agent, "ECHO now")
    assert roles_and_texts(world.asked("ECHO now")) == [
        ("user", "ECHO kept"),
        ("assistant", "kept"),
        ("user", "ECHO now"),
    ]


# Runs


async def test_rule_run_outlives_reader(world: LettaWorld, agent: AgentHandle) -> None:
    name, gate = world.gate()
    async with world.gateway.send(agent, [OutgoingMessage("user", f"GATE {name} 1 1")]) as events:
        run_id = run_of([await anext(events)])
        await gate.reached.wait()
    gate.opened.set()
    await world.ended(agent, run_id)
    await world.say(agent, "ECHO what was that?")
    assert ("assistant", "w0 w1") in roles_and_texts(world.asked("what was that?"))


async def test_rule_cancel(world: LettaWorld, agent: AgentHandle) -> None:
    sdk = world.client.as_member(agent.member_id).conversations
    assert await refused(sdk.cancel(agent.conversation_id)) == 409
    async with world.gateway.send(agent, [OutgoingMessage("user", "SLOW 1000 0.05")]) as events:
        run_id = run_of([await anext(events)])
        assert text_of([await anext(events)]).startswith("w0")
        await world.gateway.cancel(agent, run_id)
        rest = [event async for event in events]
    assert rest[-1] == RunEnded(TurnStatus.CANCELLED)
    await world.say(agent, "ECHO after")
    assert roles_and_texts(world.asked("ECHO after")) == [("user", "ECHO after")]


async def test_rule_record_equals_stream(world: LettaWorld, agent: AgentHandle) -> None:
    for text in ("ECHO a  b\tc ", "REASON", 'CALL archival_memory_insert {"content": "Ada keeps bees"}'):
        events = await world.say(agent, text)
        assert text_of(await world.gateway.reply(agent, run_of(events))) == text_of(events)
    failed = await world.say(agent, "DROP")
    assert text_of(failed)
    assert not text_of(await world.gateway.reply(agent, run_of(failed)))


async def test_rule_usage_from_steps(world: LettaWorld, agent: AgentHandle) -> None:
    events = await world.say(agent, 'CALL archival_memory_insert {"content": "Ada keeps bees"}')
    (live,) = [event for event in events if isinstance(event, UsageReported)]
    reply = await world.gateway.reply(agent, run_of(events))
    assert [event for event in reply if isinstance(event, UsageReported)] == [live]
    assert live.usage.model_calls == 2
    usage = await get_json(world.client.as_member(agent.member_id), f"/v1/runs/{run_of(events)}/usage")
    assert usage["total_tokens"] == live.usage.total_tokens
    assert usage["prompt_tokens_details"] is None


async def test_rule_runs_of_a_conversation(world: LettaWorld, agent: AgentHandle) -> None:
    runs = [run_of(await world.say(agent, f"ECHO {number}")) for number in range(3)]
    member = world.client.as_member(agent.member_id)
    query: dict[str, str | int] = {"conversation_id": agent.conversation_id, "order": "desc", "limit": 2}
    assert [run["id"] for run in await get_json(member, "/v1/runs/", query)] == [runs[2], runs[1]]


@pytest.mark.skipif("tool_order" not in applied_patches(), reason="Letta's own order differs from call to call")
async def test_each_model_call_lists_the_tools_in_the_same_order(
    world: LettaWorld, agent: AgentHandle, member: AsyncLetta
) -> None:
    """So that providers can cache the prompt. Attaching a tool again moves its row to the end."""
    first = (await member.agents.tools.list(agent.agent_id)).items[0]
    await member.agents.tools.detach(first.id, agent_id=agent.agent_id)
    await member.agents.tools.attach(first.id, agent_id=agent.agent_id)

    await world.say(agent, "ECHO the order of tools")

    listed = world.asked("ECHO the order of tools").tools
    assert len(listed) > 2
    assert listed == sorted(listed)
