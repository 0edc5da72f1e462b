"""Two users, each on WebSocket and SSE at once: every device receives its own user's whole stream."""

import asyncio
import json
from typing import Any

import aiohttp

from tests.stack.chat_client import TERMINAL, TIMEOUT, ChatUser
from tests.stack.conftest import NewUser


async def test_every_device_of_two_users_sees_its_own_stream_whole(new_user: NewUser) -> None:
    users = [await new_user("Ada"), await new_user("Bob")]
    await asyncio.gather(*(_converse_on_three_devices(user, f"for {number} only") for number, user in enumerate(users)))


async def _converse_on_three_devices(user: ChatUser, words: str) -> None:
    async with user.connect() as phone, user.connect() as laptop, _events(user) as stream:
        reading = asyncio.create_task(_read_to_end(stream))
        ack = await phone.say(f"ECHO {words}")
        await asyncio.gather(phone.end_of(ack["turn_id"]), laptop.end_of(ack["turn_id"]))
        events = await asyncio.wait_for(reading, TIMEOUT)
    assert phone.text_of(ack["turn_id"]) == laptop.text_of(ack["turn_id"]) == words
    assert "".join(e["text"] for e in events if e["type"] == "message.delta") == words
    assert {e["turn_id"] for e in events if "turn_id" in e} == {ack["turn_id"]}
    end = await phone.end_of(ack["turn_id"])
    assert end == await laptop.end_of(ack["turn_id"]) == events[-1]


async def test_a_dropped_event_stream_resumes_where_it_left_off(ada: ChatUser) -> None:
    async with ada.connect() as device:
        ack = await device.say("SLOW 10 0.01")
        end = await device.end_of(ack["turn_id"])
        whole = device.text_of(ack["turn_id"])
        deltas = [f for f in device.events_of(ack["turn_id"]) if f["type"] == "message.delta"]
        middle = deltas[len(deltas) // 2]
        async with _events(ada, f"{middle['epoch']}:{middle['seq']}") as stream:
            events = await asyncio.wait_for(_read_to_end(stream), TIMEOUT)
    seen = "".join(delta["text"] for delta in deltas if delta["seq"] <= middle["seq"])
    rest = "".join(e["text"] for e in events if e["type"] == "message.delta")
    assert seen + rest == whole == end["turn"]["message"]["content"]


def _events(user: ChatUser, cursor: str | None = None) -> Any:
    headers = user.headers if cursor is None else {**user.headers, "Last-Event-ID": cursor}
    return user.http.get(f"{user.url}/api/v1/chat/events", headers=headers)


async def _read_to_end(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    """The events of a stream, `ready` left out, up to the first terminal one."""
    assert response.content_type == "text/event-stream"
    events: list[dict[str, Any]] = []
    async for line in response.content:
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            if event["type"] not in ("ready", "agent.status"):
                events.append(event)
            if event["type"] in TERMINAL:
                break
    return events
