"""A reload shows what was seen: the reasoning and the tool calls of replies, on the real services."""

import json
import uuid
from dataclasses import replace
from typing import Any, Final

import aiohttp

from tests.stack.chat_client import ChatUser, Device
from tests.stack.conftest import NewUser
from tests.stack.running_stack import RunningStack

Json = dict[str, Any]
STEPS: Final = ("reasoning.delta", "tool.called", "tool.returned")
OF_THE_LOG: Final = ("epoch", "seq", "first_seq", "at", "turn_id", "attempt")


def search(word: str, how: str = "") -> str:
    return f"CALL{how} archival_memory_search {json.dumps({'query': word})}"


def steps_seen(device: Device, turn_id: str) -> list[Json]:
    """What a device saw of a turn, as steps."""
    steps: list[Json] = []
    for event in device.events_of(turn_id):
        step = {name: value for name, value in event.items() if name not in OF_THE_LOG}
        if event["type"] == "reasoning.delta" and steps and steps[-1]["type"] == event["type"]:
            steps[-1]["text"] += step["text"]
        elif event["type"] in STEPS:
            steps.append(step)
    return steps


async def test_a_reload_shows_the_reasoning_and_the_tool_calls_that_were_seen(new_user: NewUser) -> None:
    word = f"zebra{uuid.uuid4().hex[:12]}"
    user = await new_user("Ada")
    async with user.connect() as device:
        seen: dict[str, list[Json]] = {}
        for content in (search(word), "REASON"):
            turn_id = (await device.say(content))["turn_id"]
            end = await device.end_of(turn_id)
            assert "steps" not in end["turn"]["message"]
            seen[turn_id] = steps_seen(device, turn_id)
    assert [[step["type"] for step in steps] for steps in seen.values()] == [list(STEPS[1:]), [STEPS[0]]]
    history = (await user.get("/chat/history?include=steps"))["data"]
    assert {one["turn_id"]: one["steps"] for one in history if one["role"] == "assistant"} == seen
    assert [one for one in history if "steps" in one and one["role"] == "user"] == []
    assert [one for one in (await user.get("/chat/history"))["data"] if "steps" in one] == []
    for turn_id, steps in seen.items():
        assert (await user.get(f"/chat/turns/{turn_id}"))["message"]["steps"] == steps
    exported = await user.get("/user/export")
    assert [one["steps"] for one in exported["messages"] if one["role"] == "assistant"] == list(seen.values())
    assert (await user.call("DELETE", "/chat/history"))[0] == 204
    assert word not in json.dumps((await user.get("/user/export"))["messages"])


async def test_steps_are_read_on_an_api_key_and_by_nobody_else(
    stack: RunningStack, http: aiohttp.ClientSession, new_user: NewUser
) -> None:
    ada, bob = await new_user("Ada"), await new_user("Bob")
    turn = await ada.say(search("secret"))
    _, key = await ada.call("POST", "/user/api-keys", {"name": "script", "scopes": ["read"]})
    script = replace(ada, access_token=key["key"])
    for path in ("/chat/history?include=steps", f"/chat/turns/{turn['id']}"):
        assert await script.get(path) == await ada.get(path)
    assert (await bob.call("GET", f"/chat/turns/{turn['id']}"))[0] == 404
    assert (await bob.get("/chat/history?include=steps"))["data"] == []
    assert await _rows(stack, http, bob, turn["id"]) == []
    assert [len(row["steps"]) for row in await _rows(stack, http, ada, turn["id"]) if row["role"] == "assistant"] == [2]


async def _rows(stack: RunningStack, http: aiohttp.ClientSession, user: ChatUser, turn_id: str) -> list[Json]:
    """The turn's messages, as the user reads them from Supabase directly."""
    headers = {"apikey": stack.env["SUPABASE_ANON_KEY"], **user.headers}
    url = f"{stack.env['SUPABASE_URL']}/rest/v1/messages"
    async with http.get(url, headers=headers, params={"select": "role,steps", "turn_id": f"eq.{turn_id}"}) as response:
        assert response.status == 200
        rows: list[Json] = await response.json()
        return rows


async def test_a_device_that_joins_gets_the_steps_so_far_and_a_stopped_turn_keeps_them(
    stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser
) -> None:
    gate = uuid.uuid4().hex
    async with ada.connect() as phone:
        turn_id = (await phone.say(search(gate, f" THEN {gate}")))["turn_id"]
        await phone.wait_for(lambda frame: frame["type"] == "tool.returned")
        async with ada.connect() as laptop:
            running = laptop.ready["turn"]
            assert (running["text"], running["steps"]) == ("", steps_seen(phone, turn_id))
            await laptop.send(type="cancel", id="stop", turn_id=turn_id)
            end = await laptop.end_of(turn_id)
    assert end["type"] == "turn.cancelled"
    assert (end["turn"]["message"]["content"], end["turn"]["message"]["status"]) == ("", "partial")
    [reply, _] = (await ada.get("/chat/history?include=steps&limit=2"))["data"]
    assert (reply["turn_id"], reply["steps"]) == (turn_id, running["steps"])
    await stack.open_gate(http, gate)
