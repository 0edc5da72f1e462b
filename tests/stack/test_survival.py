"""Recovery after crashes: kill -9 of the server and of Letta in the middle of turns, and restarts of both."""

import asyncio
import uuid
from typing import Any

import aiohttp
import pytest

from tests.stack.chat_client import ChatUser, register
from tests.stack.own_server import ServerProcess
from tests.stack.running_stack import RunningStack
from tests.stack.waiting import ready_again


@pytest.fixture
def gate() -> str:
    """A gate of the scripted model that no other test uses."""
    return uuid.uuid4().hex


async def test_killing_the_server_in_mid_reply_loses_nothing(
    own_stack: RunningStack, own_server: ServerProcess, http: aiohttp.ClientSession, bob: ChatUser, gate: str
) -> None:
    async with bob.connect() as device:
        ack = await device.say(f"GATE {gate} 2 3")
        waiting = await device.say("ECHO afterwards")
        await device.wait_for(lambda _: device.text_of(ack["turn_id"]).split() == ["w0", "w1"])
        cursor = f"{device.frames[-1]['epoch']}:{device.frames[-1]['seq']}"
        own_server.kill()
    await own_server.restart()
    async with bob.connect(after=cursor) as device:
        assert device.ready["resumed"] is False
        assert device.ready["turn"]["turn_id"] == ack["turn_id"]
        await own_stack.open_gate(http, gate)
        end = await device.end_of(ack["turn_id"])
        assert end["type"] == "turn.completed"
        shown = device.ready["turn"]["text"] + device.text_of(ack["turn_id"])
        assert end["turn"]["message"]["content"] == shown == "w0 w1 w2 w3 w4"
        assert (await device.end_of(waiting["turn_id"]))["turn"]["message"]["content"] == "afterwards"
    history = (await bob.get("/chat/history"))["data"]
    assert [m["content"] for m in history] == ["afterwards", "ECHO afterwards", "w0 w1 w2 w3 w4", f"GATE {gate} 2 3"]
    assert len(await own_stack.model_log(http, gate)) == 1


async def test_a_turn_that_ended_while_the_server_was_down_is_stored(
    own_stack: RunningStack, own_server: ServerProcess, http: aiohttp.ClientSession, bob: ChatUser, gate: str
) -> None:
    async with bob.connect() as device:
        ack = await device.say(f"GATE {gate} 1 2")
        await own_stack.at_gate(http, gate)
        own_server.kill()
        await own_stack.open_gate(http, gate)
    await own_server.restart()
    turn = await bob.ended(ack["turn_id"])
    assert (turn["status"], turn["message"]["content"]) == ("completed", "w0 w1 w2")
    assert turn["usage"]["model_calls"] == 1
    assert len(await own_stack.model_log(http, gate)) == 1


@pytest.mark.alone
async def test_killing_letta_fails_the_turn_retryably_and_frees_the_conversation(
    stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser, gate: str
) -> None:
    async with ada.connect() as device:
        ack = await device.say(f"GATE {gate} 1 2")
        await device.wait_for(lambda _: device.text_of(ack["turn_id"]).split() == ["w0"])
        pid = stack.kill("letta")
        await stack.open_gate(http, gate)
        await ready_again(stack, http, "letta", pid)
        end = await device.end_of(ack["turn_id"])
        assert end["type"] == "turn.failed"
        assert end["turn"]["error"]["retryable"] is True
        assert end["turn"]["message"]["content"].split() == ["w0"]
        await device.send(type="retry", id="again", turn_id=ack["turn_id"])
        await device.answer_to("again")
        done = await device.wait_for(lambda f: f["type"] == "turn.completed" and f["turn_id"] == ack["turn_id"])
    assert done["turn"]["message"]["content"] == "w0 w1 w2"


@pytest.mark.alone
async def test_a_fact_comes_back_from_memory_after_every_service_was_killed(
    stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser
) -> None:
    told = await ada.say("Please remember that my favourite colour is ultramarine.")
    assert told["usage"]["model_calls"] >= 2
    before = await said(ada)
    pids = {service: stack.kill(service) for service in ("server", "letta", "litellm", "supabase", "redis", "postgres")}
    for service, pid in pids.items():
        await ready_again(stack, http, service, pid)
    assert await said(ada) == before
    blocks = {block["label"]: block["value"] for block in (await ada.get("/agent/memory"))["blocks"]}
    assert "ultramarine" in blocks["human"]
    answer = await ada.say("What is my favourite colour?")
    assert "ultramarine" in answer["message"]["content"].lower()


async def said(user: ChatUser) -> list[tuple[str, ...]]:
    """The user's history, without what it cost: that is settled later."""
    history = (await user.get("/chat/history"))["data"]
    return [(one["id"], one["role"], one["content"], one["status"]) for one in history]


async def test_registrations_cut_off_by_a_crash_end_with_one_agent_each(
    own_stack: RunningStack, own_server: ServerProcess, http: aiohttp.ClientSession
) -> None:
    users = await asyncio.gather(*(register(http, own_stack.url, f"User {n}") for n in range(4)))
    own_server.kill()  # while the agents are being made
    await own_server.restart()
    await asyncio.gather(*(user.has_agent() for user in users))
    turns = await asyncio.gather(*(user.say("ECHO still here") for user in users))
    assert [turn["message"]["content"] for turn in turns] == ["still here"] * 4
    organizations = [o["name"] for o in await _letta(own_stack, http, "/v1/admin/orgs/?limit=1000")]
    for user in users:
        assert organizations.count(user.id) == 1
        keys = await _litellm(own_stack, http, f"/key/list?user_id={user.id}&size=10")
        assert keys["total_count"] == 1


async def _letta(stack: RunningStack, http: aiohttp.ClientSession, path: str) -> Any:
    headers = {"Authorization": f"Bearer {stack.env['LETTA_API_TOKEN']}"}
    async with http.get(stack.env["LETTA_BASE_URL"] + path, headers=headers) as response:
        return await response.json()


async def _litellm(stack: RunningStack, http: aiohttp.ClientSession, path: str) -> Any:
    headers = {"Authorization": f"Bearer {stack.env['LITELLM_MASTER_KEY']}"}
    async with http.get(stack.env["LITELLM_BASE_URL"] + path, headers=headers) as response:
        return await response.json()
