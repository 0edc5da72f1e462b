"""Agents, conversations and organizations that are deleted at Letta: they are created again or reported."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from server.provisioning.steps import AGENT_REPLACED, CONVERSATION_REPLACED
from tests.stack.chat_client import ChatUser, Device
from tests.stack.commands import chat_users
from tests.stack.own_server import ServerProcess
from tests.stack.provisioning_lab import Lab, open_lab
from tests.stack.running_stack import RunningStack

NEEDS_OPERATOR = "The agent service no longer knows your agent. This needs an operator."


@pytest.fixture
async def lab(stack_env: dict[str, str]) -> AsyncIterator[Lab]:
    async with open_lab(stack_env) as lab:
        yield lab


@pytest.fixture
def gate() -> str:
    return uuid.uuid4().hex


async def delete(lab: Lab, user: ChatUser, what: str) -> str:
    """Delete it, as an operator of Letta would. Returns the id of the deleted object."""
    account = (await lab.holdings(user.id)).account
    member = lab.letta.as_member(str(account.member_id))
    if what == "agent":
        await member.agents.delete(str(account.agent_id))
        return str(account.agent_id)
    if what == "conversation":
        await member.conversations.delete(str(account.conversation_id))
        return str(account.conversation_id)
    await lab.letta.as_admin().delete(f"/v1/admin/orgs/?org_id={account.organization_id}", cast_to=object)
    return str(account.organization_id)


async def agent_events(device: Device, *, until: str) -> list[tuple[str, str | None]]:
    """Every `agent.status` up to the first with the status `until`."""
    await device.wait_for(lambda frame: frame["type"] == "agent.status" and frame["status"] == until)
    return [(frame["status"], frame["reason"]) for frame in device.frames if frame["type"] == "agent.status"]


def server_log(stack: RunningStack) -> str:
    return (stack.data_dir / "logs" / "server.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("what", "reason", "event"),
    [("agent", AGENT_REPLACED, "agent.replaced"), ("conversation", CONVERSATION_REPLACED, "conversation.replaced")],
)
async def test_the_next_message_recreates_what_was_deleted_between_turns(
    lab: Lab, stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser, what: str, reason: str, event: str
) -> None:
    await ada.say('CALL memory_insert {"label": "human", "new_string": "Sails"}')
    old = await delete(lab, ada, what)
    text = f"still there, {uuid.uuid4()}?"
    async with ada.connect() as device:
        ack = await device.say(f"ECHO {text}")
        end = await device.end_of(ack["turn_id"])
        assert (end["type"], end["turn"]["message"]["content"]) == ("turn.completed", text)
        assert await agent_events(device, until="active") == [("provisioning", reason), ("active", reason)]
    status = await ada.get("/agent/status")
    assert (status["status"], status["reason"]) == ("active", reason)
    human = next(block for block in (await ada.get("/agent/memory"))["blocks"] if block["label"] == "human")
    assert ("Sails" in human["value"]) == (what == "conversation")
    assert len(await stack.model_log(http, text)) == 1
    await ada.say("ECHO and again")
    held = await lab.holdings(ada.id)
    assert (held.agents, held.conversations) == ([held.account.agent_id], [held.account.conversation_id])
    (line,) = [line for line in server_log(stack).splitlines() if event in line and ada.id in line]
    assert old in line


async def test_reading_the_memory_of_a_deleted_agent_creates_a_new_one(lab: Lab, ada: ChatUser) -> None:
    await ada.say("ECHO before")
    old = await delete(lab, ada, "agent")
    assert {block["label"] for block in (await ada.get("/agent/memory"))["blocks"]} == {"human", "persona"}
    status = await ada.get("/agent/status")
    assert (status["reason"], status["agent_id"] != old) == (AGENT_REPLACED, True)


async def test_memory_written_after_the_conversation_was_deleted_is_in_the_next_one(
    lab: Lab, stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser
) -> None:
    await ada.say("ECHO before")
    await delete(lab, ada, "conversation")
    status, block = await ada.ask("PATCH", "/agent/memory/human", {"value": "Rows."})
    assert (status, block["value"]) == (200, "Rows.")
    text = f"ECHO {uuid.uuid4()}"
    await ada.say(text)
    (seen,) = await stack.model_log(http, text)
    assert "Rows." in str(seen["messages"][0])


@pytest.mark.parametrize("what", ["agent", "conversation"])
async def test_a_deletion_in_mid_turn_never_blocks_the_user(
    lab: Lab, stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser, gate: str, what: str
) -> None:
    async with ada.connect() as device:
        ack = await device.say(f"GATE {gate} 2 3")
        await stack.at_gate(http, gate)
        await delete(lab, ada, what)
        await stack.open_gate(http, gate)
        end = await device.end_of(ack["turn_id"])
        assert end["turn"]["message"]["content"] == "w0 w1 w2 w3 w4"
        if what == "agent":  # Letta cannot store it
            assert (end["type"], end["turn"]["error"]["retryable"]) == ("turn.failed", True)
        else:
            assert end["type"] == "turn.completed"
    assert (await ada.say("ECHO next"))["message"]["content"] == "next"


async def test_a_turn_whose_agent_was_deleted_during_a_crash_fails_and_its_retry_completes(
    own_stack: RunningStack, own_server: ServerProcess, http: aiohttp.ClientSession, bob: ChatUser, gate: str
) -> None:
    async with bob.connect() as device:
        ack = await device.say(f"GATE {gate} 2 3")
        await own_stack.at_gate(http, gate)
        await device.wait_for(lambda frame: frame["type"] == "message.delta")
    own_server.kill()
    async with open_lab(own_stack.env) as lab:
        await delete(lab, bob, "agent")
    await own_stack.open_gate(http, gate)
    await own_server.restart()
    turn = await bob.ended(ack["turn_id"])
    assert (turn["status"], turn["error"]["code"], turn["error"]["retryable"]) == ("failed", "letta_unavailable", True)
    status, _ = await bob.call("POST", f"/chat/turns/{ack['turn_id']}/retry")
    assert status == 200
    turn = await bob.ended(ack["turn_id"])
    assert (turn["status"], turn["message"]["content"]) == ("completed", "w0 w1 w2 w3 w4")
    assert len(await own_stack.model_log(http, gate)) == 2


async def test_only_a_repair_recreates_an_organization_that_letta_lost(
    lab: Lab, stack: RunningStack, ada: ChatUser
) -> None:
    await ada.say("ECHO before")
    gone = await delete(lab, ada, "organization")
    for _ in range(2):
        status, problem = await ada.send("ECHO refused")
        assert (status, problem["code"], problem["retryable"]) == (503, "agent_unavailable", True)
        assert problem["detail"] == NEEDS_OPERATOR
    assert (await ada.call("GET", "/agent/memory"))[0] == 503
    status = await ada.get("/agent/status")
    assert (status["status"], status["reason"]) == ("failed", NEEDS_OPERATOR)
    assert (await _organizations(lab, ada)) == []
    assert any("agent.organization_gone" in line and gone in line for line in server_log(stack).splitlines())
    listed = await chat_users(stack, "list", "--limit", "1000")
    assert f"{ada.id}  failed        {ada.email}  {NEEDS_OPERATOR}" in listed

    assert (await chat_users(stack, "repair", ada.id))[-1] == "1 of 1 complete"
    assert (await ada.say("ECHO after"))["message"]["content"] == "after"
    held = await lab.holdings(ada.id)
    assert (held.account.agent_status, held.account.status_reason) == ("active", AGENT_REPLACED)
    assert (held.organizations, held.agents) == ([held.account.organization_id], [held.account.agent_id])


async def _organizations(lab: Lab, user: ChatUser) -> list[Any]:
    async with asyncio.timeout(60):
        return (await lab.holdings(user.id)).organizations
