"""Bad input on the WebSocket: one error each, and the socket stays open where the protocol says so."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.unit.streaming.raw import RawSocket
from tests.unit.streaming.server_fixture import StreamingServer
from tests.virtual_time import virtual_time_with_sockets

MESSAGE = {"type": "message", "client_message_id": "m1", "content": "hello"}
TURN = "00000000-0000-4000-8000-000000000000"

REFUSED: dict[str, tuple[Any, str]] = {
    "not JSON": ("{", "invalid_request"),
    "not an object": ("[]", "invalid_request"),
    "null": ("null", "invalid_request"),
    "empty": ("", "invalid_request"),
    "no type": ({}, "invalid_request"),
    "unknown type": ({"type": "dance"}, "invalid_request"),
    "type of the wrong type": ({"type": 1}, "invalid_request"),
    "a server's type": ({"type": "turn.completed"}, "invalid_request"),
    "unknown field": (MESSAGE | {"colour": "red"}, "invalid_request"),
    "no content": ({"type": "message", "client_message_id": "m1"}, "invalid_request"),
    "empty content": (MESSAGE | {"content": ""}, "invalid_request"),
    "blank content": (MESSAGE | {"content": " \n\t "}, "invalid_request"),
    "content of the wrong type": (MESSAGE | {"content": ["hello"]}, "invalid_request"),
    "null content": (MESSAGE | {"content": None}, "invalid_request"),
    "NUL in the content": (MESSAGE | {"content": "a\0b"}, "invalid_request"),
    "half a surrogate pair": (
        '{"type":"message","client_message_id":"m1","content":"\\ud800"}',
        "invalid_request",
    ),
    "content too long": (MESSAGE | {"content": "x" * 32_001}, "too_large"),
    "content too long in wide characters": (MESSAGE | {"content": "я" * 33_000}, "too_large"),
    "no id": ({"type": "message", "content": "hello"}, "invalid_request"),
    "empty id": (MESSAGE | {"client_message_id": ""}, "invalid_request"),
    "id with a space": (MESSAGE | {"client_message_id": "a b"}, "invalid_request"),
    "id with a line break": (MESSAGE | {"client_message_id": "a\n"}, "invalid_request"),
    "id too long": (MESSAGE | {"client_message_id": "x" * 129}, "invalid_request"),
    "id of the wrong type": (MESSAGE | {"client_message_id": 7}, "invalid_request"),
    "unknown on_busy": (MESSAGE | {"on_busy": "panic"}, "invalid_request"),
    "cancel of an id that is no UUID": ({"type": "cancel", "turn_id": "1' or '1'='1"}, "invalid_request"),
    "cancel with operators": ({"type": "cancel", "turn_id": "eq.1"}, "invalid_request"),
    "cancel without a running turn": ({"type": "cancel"}, "not_found"),
    "cancel of an unknown turn": ({"type": "cancel", "turn_id": TURN}, "not_found"),
    "retry without a turn": ({"type": "retry"}, "invalid_request"),
    "retry of an unknown turn": ({"type": "retry", "turn_id": TURN}, "not_found"),
    "auth without a token": ({"type": "auth"}, "invalid_request"),
    "auth with a number": ({"type": "auth", "token": 1}, "invalid_request"),
    "a frame above 64 KiB": ("x" * (64 * 1024 + 1), "too_large"),
    "a message of 1 MB": (MESSAGE | {"content": "x" * 1_000_000}, "too_large"),
    "deeply nested": ("[" * 60_000, "invalid_request"),
}


@pytest.mark.parametrize("name", REFUSED)
@virtual_time_with_sockets
async def test_a_bad_frame_is_one_error_and_the_socket_stays_open(name: str) -> None:
    content, code = REFUSED[name]
    async with StreamingServer() as server:
        user = server.user()
        async with server.socket(user) as socket:
            await socket.raw.send_str(content if isinstance(content, str) else orjson.dumps(content).decode())
            await socket.send("ping")
            error = await socket.receive()
            assert (error["type"], error["code"]) == ("error", code)
            assert error["message"]
            assert (await socket.receive())["type"] == "pong"
            assert server.world.turns(user) == []


@virtual_time_with_sockets
async def test_a_binary_frame_is_an_error_and_the_socket_stays_open() -> None:
    async with StreamingServer() as server, server.socket(server.user()) as socket:
        await socket.raw.send_bytes(orjson.dumps(MESSAGE))
        assert (await socket.receive())["code"] == "invalid_request"
        await socket.send("ping")
        assert (await socket.receive())["type"] == "pong"


@virtual_time_with_sockets
async def test_the_longest_content_is_accepted() -> None:
    async with StreamingServer() as server, server.socket(server.user()) as socket:
        await socket.send("message", client_message_id="m1", content="x" * 32_000)
        await socket.until("turn.completed")


@virtual_time_with_sockets
async def test_errors_do_not_quote_the_input() -> None:
    async with StreamingServer() as server, server.socket(server.user()) as socket:
        await socket.send("auth", token={"secret": "hunter2"})
        await socket.send("message", client_message_id="m 1", content={"private": "diary"})
        errors = [await socket.receive(), await socket.receive()]
        assert not any(word in str(errors) for word in ("hunter2", "diary", "m 1 "))


@virtual_time_with_sockets
async def test_a_frame_of_3_mib_closes_with_1009() -> None:
    async with StreamingServer() as server, server.socket(server.user()) as socket:
        await socket.raw.send_str("x" * (3 * 1024 * 1024))
        assert (await socket.closed())[0] == 1009


@virtual_time_with_sockets
async def test_invalid_utf8_closes_with_1007() -> None:
    async with StreamingServer() as server, RawSocket.open(server, server.user()) as raw:
        raw.send(0x1, b'{"type":"ping","id":"\xff\xfe"}')
        assert (await raw.close_code()) == 1007


@virtual_time_with_sockets
async def test_a_client_that_aborts_in_the_middle_of_a_frame_is_detached() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with RawSocket.open(server, user) as raw:
            raw.write(bytes((0x81, 0x80 | 100, 1, 2, 3, 4)) + b"half")
            raw.abort()
        await asyncio.sleep(1)
        assert server.process.hub.counts["connections"] == 0


@virtual_time_with_sockets
async def test_fragments_with_pings_between_them_are_read() -> None:
    async with StreamingServer() as server, RawSocket.open(server, server.user()) as raw:
        raw.send(0x1, b'{"type":', final=False)
        raw.send(0x9, b"still there?")
        raw.send(0x0, b'"ping"}')
        assert await raw.frame() == (0xA, b"still there?")
        assert await raw.frame() == (0x1, b'{"type":"pong"}')
