"""The first minutes of a new user: register, send messages over each transport, read history, usage and agent."""

import json
import uuid
from decimal import Decimal
from typing import Any

from tests.stack.chat_client import ChatUser


async def test_a_new_user_talks_over_the_websocket_and_finds_it_in_the_history(ada: ChatUser) -> None:
    async with ada.connect() as device:
        ack = await device.say("ECHO hello to you")
        end = await device.end_of(ack["turn_id"])
    assert end["type"] == "turn.completed"
    assert end["turn"]["message"]["content"] == device.text_of(ack["turn_id"]) == "hello to you"

    history = await ada.get("/chat/history")
    assert [(m["role"], m["content"], m["status"]) for m in history["data"]] == [
        ("assistant", "hello to you", "complete"),
        ("user", "ECHO hello to you", "complete"),
    ]
    assert history["has_more"] is False


async def test_events_are_numbered_without_gaps_and_a_turn_ends_once(ada: ChatUser) -> None:
    async with ada.connect() as device:
        ack = await device.say("SLOW 12 0.02")
        await device.end_of(ack["turn_id"])
        events = device.events_of(ack["turn_id"])
    numbers = [n for frame in device.frames if "seq" in frame for n in _numbers(frame)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert events[0]["type"] == "turn.started"
    assert [e["type"] for e in events if e["type"].startswith("turn.")] == ["turn.started", "turn.completed"]


def _numbers(frame: dict[str, Any]) -> range:
    """The numbers of the events in a frame."""
    return range(frame["first_seq"] if "first_seq" in frame else frame["seq"], frame["seq"] + 1)


async def test_words_arrive_while_the_model_still_writes(stack: Any, http: Any, ada: ChatUser) -> None:
    gate = uuid.uuid4().hex
    async with ada.connect() as device:
        ack = await device.say(f"GATE {gate} 3 2")
        await device.wait_for(lambda _: device.text_of(ack["turn_id"]).split() == ["w0", "w1", "w2"])
        await stack.open_gate(http, gate)
        end = await device.end_of(ack["turn_id"])
    assert end["turn"]["message"]["content"].split() == ["w0", "w1", "w2", "w3", "w4"]


async def test_a_message_over_rest_is_answered_with_its_turn_or_with_its_events(ada: ChatUser) -> None:
    turn = await ada.say("ECHO over rest")
    assert turn["message"]["content"] == "over rest"
    assert turn["usage"]["model_calls"] == 1
    assert Decimal(turn["cost"]) > 0
    turn["message"]["steps"] = []
    assert uncharged(await ada.get(f"/chat/turns/{turn['id']}")) == uncharged(turn)

    body = {"content": "ECHO over sse"}
    async with ada.http.post(f"{ada.url}/api/v1/chat/message", json=body, headers=ada.headers) as response:
        assert response.content_type == "text/event-stream"
        stream = (await response.read()).decode()
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]
    assert "".join(e["text"] for e in events if e["type"] == "message.delta") == "over sse"
    assert events[-1]["type"] == "turn.completed"


def uncharged(turn: dict[str, Any]) -> dict[str, Any]:
    """The turn without its charge, which is settled seconds after its end."""
    return {
        **{name: value for name, value in turn.items() if name not in ("cost", "cost_status", "usage")},
        "message": {name: value for name, value in turn["message"].items() if name not in ("cost", "tokens_used")},
    }


async def test_the_same_message_sent_twice_is_one_turn_and_one_charge(ada: ChatUser) -> None:
    first = await ada.say("ECHO once", client_message_id="only-once")
    again = await ada.say("ECHO once", client_message_id="only-once")
    assert uncharged(again) == uncharged(first)
    status, problem = await ada.call(
        "POST", "/chat/message", {"content": "ECHO other", "client_message_id": "only-once", "stream": False}
    )
    assert (status, problem["code"]) == (409, "id_conflict")
    usage = await ada.get("/user/usage")
    assert usage["total"] == {"messages": 2, "tokens": first["usage"]["total_tokens"], "cost": usage["total"]["cost"]}
    assert Decimal(usage["total"]["cost"]) == Decimal(first["message"]["cost"])


async def test_the_status_and_memory_of_the_agent_can_be_read(ada: ChatUser) -> None:
    await ada.say("ECHO ready")
    status = await ada.get("/agent/status")
    assert (status["status"], status["turn"], status["queued"]) == ("active", None, 0)
    assert status["agent_id"].startswith("agent-")
    memory = await ada.get("/agent/memory")
    blocks = {block["label"]: block["value"] for block in memory["blocks"]}
    assert blocks["human"].startswith("User's name: Ada")
    assert "perfect memory" in blocks["persona"]
    assert memory["context"]["used"] > 0

    status, block = await ada.ask("PATCH", "/agent/memory/human", {"value": "User's name: Ada. Likes tea."})
    assert (status, block["value"]) == (200, "User's name: Ada. Likes tea.")


async def test_tool_calls_are_published_as_they_happen(ada: ChatUser) -> None:
    arguments = json.dumps({"label": "human", "new_string": "Plays the cello", "insert_line": -1})
    async with ada.connect() as device:
        ack = await device.say(f"CALL memory_insert {arguments}")
        end = await device.end_of(ack["turn_id"])
        called = await device.wait_for(lambda f: f["type"] == "tool.called")
        returned = await device.wait_for(lambda f: f["type"] == "tool.returned")
    assert (called["name"], json.loads(called["arguments"])["new_string"]) == ("memory_insert", "Plays the cello")
    assert (returned["name"], returned["status"]) == ("memory_insert", "success")
    assert end["turn"]["usage"]["model_calls"] == 2
    assert end["turn"]["message"]["content"] == device.text_of(ack["turn_id"])
    blocks = (await ada.get("/agent/memory"))["blocks"]
    assert any("Plays the cello" in block["value"] for block in blocks)
