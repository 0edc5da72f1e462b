"""Bad input on a real socket: each gets one clear error, the connection stays open, and nothing is stored."""

import json

import pytest

from tests.stack.chat_client import ChatUser

WRONG = {
    "malformed JSON": "{nope",
    "no object": "[1, 2]",
    "unknown type": '{"type": "shout"}',
    "no type": '{"content": "hi"}',
    "unknown field": '{"type": "ping", "volume": 11}',
    "wrong type": '{"type": "message", "client_message_id": "a", "content": 7}',
    "blank": '{"type": "message", "client_message_id": "a", "content": "  "}',
    "nothing to read": '{"type": "message", "client_message_id": "a", "content": "\\u200b\\ufeff \\u2060"}',
    "nul character": '{"type": "message", "client_message_id": "a", "content": "a\\u0000b"}',
    "half a surrogate pair": '{"type": "message", "client_message_id": "a", "content": "\\ud83d"}',
    "no id": '{"type": "message", "content": "hi"}',
    "SQL in an id": '{"type": "cancel", "turn_id": "1; drop table turns"}',
    "a megabyte": json.dumps({"type": "message", "client_message_id": "a", "content": "x" * 2**20}),
}


@pytest.mark.parametrize("frame", WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_frame_is_answered_and_the_connection_goes_on(ada: ChatUser, frame: str) -> None:
    async with ada.connect() as device:
        await device.socket.send_str(frame)
        error = await device.wait_for(lambda f: f["type"] == "error")
        assert error["code"] == ("too_large" if len(frame) > 2**16 else "invalid_request")
        assert (error["retryable"], bool(error["message"])) == (False, True)
        await device.send(type="ping", id="still-here")
        await device.wait_for(lambda f: f["type"] == "pong" and f["id"] == "still-here")
    assert (await ada.get("/chat/history"))["data"] == []


async def test_a_binary_frame_is_answered_and_the_connection_goes_on(ada: ChatUser) -> None:
    async with ada.connect() as device:
        await device.socket.send_bytes(b"\x00\x01")
        assert (await device.wait_for(lambda f: f["type"] == "error"))["code"] == "invalid_request"
        ack = await device.say("ECHO still here")
        assert (await device.end_of(ack["turn_id"]))["type"] == "turn.completed"


async def test_a_ticket_opens_one_socket_and_no_second(ada: ChatUser) -> None:
    status, body = await ada.call("POST", "/chat/ticket")
    assert status == 200
    url = f"{ada.url}/api/v1/chat/stream"
    async with ada.http.ws_connect(url, params={"ticket": body["ticket"]}) as socket:
        assert (await socket.receive_json())["type"] == "ready"
    async with ada.http.ws_connect(url, params={"ticket": body["ticket"]}) as socket:
        assert (await socket.receive_json())["code"] == "unauthorized"
        await socket.receive()
        assert socket.close_code == 4500
