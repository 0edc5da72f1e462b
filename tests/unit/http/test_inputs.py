"""Bad input: one error each, and never status 500."""

import json
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web

from server.api.models import SendMessage
from server.http.inputs import TEXT_BYTES
from server.protocol.limits import Limits
from tests.unit.api.world import World

MESSAGE = "/api/v1/chat/message"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b'{"content": "a",}',
        b'{"content": NaN}',
        b'{"content": "\xff\xfe"}',
        b'{"content": "\xed\xa0\x80"}',
        b'{"content": "\\ud800"}',
        b'{"content": "\\udc00 alone"}',
        b'{"content": "\\u0000"}',
        b"\xef\xbb\xbf{}",
        b"[]",
        b'"text"',
        b"null",
        b"1",
        b"[" * 5000,
        b'{"a":' * 5000,
        b"\0",
    ],
)
async def test_a_malformed_body_is_400(world: World, body: bytes) -> None:
    answer = await (await world.user()).post(MESSAGE, data=body, headers=JSON)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert world.gateway.sent == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json"]
)
async def test_another_content_type_is_400_and_names_the_accepted_one(world: World, kind: str) -> None:
    answer = await (await world.user()).post(MESSAGE, data=b'{"content":"hi"}', headers={"Content-Type": kind})
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert "application/json" in answer.json["detail"]


async def test_a_content_type_with_a_charset_is_accepted(world: World) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    answer = await (await world.user()).post(MESSAGE, data=b'{"content":"hi","stream":false}', headers=headers)
    assert answer.status == 200


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/content"]),
        ({"content": None}, ["/content"]),
        ({"content": 1}, ["/content"]),
        ({"content": ["hi"]}, ["/content"]),
        ({"content": ""}, ["/content"]),
        ({"content": " \n\t"}, ["/content"]),
        ({"content": "hi", "stream": "false"}, ["/stream"]),
        ({"content": "hi", "stream": 0}, ["/stream"]),
        ({"content": "hi", "on_busy": "wait"}, ["/on_busy"]),
        ({"content": "hi", "client_message_id": ""}, ["/client_message_id"]),
        ({"content": "hi", "client_message_id": "a b"}, ["/client_message_id"]),
        ({"content": "hi", "client_message_id": "é"}, ["/client_message_id"]),
        ({"content": "hi", "client_message_id": "i" * 129}, ["/client_message_id"]),
        ({"content": "hi", "model": "gpt-5"}, ["/model"]),
        ({"content": 1, "stream": "x", "a/b": 1}, ["/content", "/stream", "/a~1b"]),
    ],
)
async def test_every_wrong_field_has_a_pointer(world: World, body: dict[str, Any], pointers: list[str]) -> None:
    answer = await (await world.user()).post(MESSAGE, body)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert [error["pointer"] for error in answer.json["errors"]] == pointers


async def test_the_list_of_wrong_fields_is_limited(world: World) -> None:
    answer = await (await world.user()).post(MESSAGE, {f"field-{number}": 1 for number in range(5000)})
    assert answer.status == 400
    assert len(answer.json["errors"]) == 20


async def test_a_body_of_too_many_unknown_fields_is_refused_before_it_is_validated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await world.user()
    monkeypatch.setattr(SendMessage, "model_validate_json", lambda *_, **__: pytest.fail("it was validated"))
    for known in ({}, {"content": "hi"}, {"content": 1}):
        answer = await user.post(MESSAGE, known | {f"a/{number}": number for number in range(21)})
        assert (answer.status, answer.code) == (400, "invalid_request")
        assert [error["pointer"] for error in answer.json["errors"]] == [f"/a~1{number}" for number in range(20)]


@pytest.mark.parametrize("path", ["auth/login", "auth/register", "auth/refresh"])
async def test_an_oversized_sign_in_body_is_refused_unread(world: World, path: str) -> None:
    answer = await world.visitor.post(f"/api/v1/{path}", data=b" " * 8193, headers=JSON)
    assert (answer.status, answer.code) == (413, "too_large")
    assert "8192" in answer.json["detail"]


async def test_the_longest_sign_up_is_accepted_also_escaped(world: World) -> None:
    email = "ж" * 248 + "@ж.жж"
    fields = {"email": email, "password": "🙂" * 18, "name": "🙂" * Limits.name_characters}
    escaped = json.dumps(fields).encode()
    assert (await world.visitor.post("/api/v1/auth/register", data=escaped, headers=JSON)).status == 201


@pytest.mark.parametrize("path", ["chat/events", "chat/history", "user/usage", "agent/memory", "chat/stream"])
@pytest.mark.parametrize(
    "query", ["&".join(["a"] * 2000), "&".join(f"{n}" for n in range(40)), "after=" + "x&" * 2000, "&" * 2000]
)
async def test_an_oversized_query_is_refused_before_it_is_parsed(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str, query: str
) -> None:
    user = await world.user()
    monkeypatch.setattr(web.Request, "query", property(lambda _: pytest.fail("it was parsed")))
    answer = await user.get(f"/api/v1/{path}?{query}")
    assert (answer.status, answer.code) == (400, "invalid_request")


async def test_each_endpoint_has_its_own_limit_of_the_query(world: World) -> None:
    user = await world.user()
    assert (await user.get("/api/v1/agent/memory?query=" + "x" * 1000)).status == 200
    assert (await user.get("/api/v1/agent/memory?query=" + "%D0%B6" * 1000)).status == 200
    assert (await user.get("/api/v1/chat/history?limit=1&before=" + "x" * 2048)).status == 400


async def test_an_empty_body_is_an_error_that_names_the_missing_field(world: World) -> None:
    answer = await (await world.user()).post(MESSAGE)
    assert [error["pointer"] for error in answer.json["errors"]] == ["/content"]


async def test_the_longest_message_is_accepted_also_escaped(world: World) -> None:
    user = await world.user()
    content = "ж" * Limits.content_characters
    escaped = b'{"stream":false,"content":"%b"}' % (b"\\u0436" * Limits.content_characters)
    answer = await user.post(MESSAGE, data=escaped, headers=JSON)
    assert (answer.status, answer.json["user_message"]["content"]) == (200, content)
    emoji = orjson.dumps({"stream": False, "content": "🙂" * Limits.content_characters})
    assert (await user.post(MESSAGE, data=emoji, headers=JSON)).status == 200


async def test_a_longer_message_is_413_with_a_pointer(world: World) -> None:
    answer = await (await world.user()).say("x" * (Limits.content_characters + 1))
    assert (answer.status, answer.code) == (413, "too_large")
    assert [error["pointer"] for error in answer.json["errors"]] == ["/content"]


async def test_a_body_of_a_megabyte_is_413_whether_announced_or_not(world: World) -> None:
    user = await world.user()
    announced = await user.post(MESSAGE, data=b"x" * 1_000_000, headers=JSON)
    assert (announced.status, announced.code) == (413, "too_large")

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * (TEXT_BYTES // 2)

    answer = await user.post(MESSAGE, data=unannounced(), headers=JSON)
    assert (answer.status, answer.code) == (413, "too_large")


async def test_a_connection_stays_usable_after_a_refusal(world: World) -> None:
    user = await world.user()
    assert (await user.post(MESSAGE, data=b"{", headers=JSON)).status == 400
    assert (await user.say("hello")).status == 200


async def test_a_refusal_does_not_quote_the_input(world: World) -> None:
    body = {"email": "ann@example.com", "password": "hunter2hunter2", "passwort": "hunter2hunter2"}
    answer = await world.visitor.post("/api/v1/auth/register", body)
    assert answer.status == 400
    assert b"hunter2" not in answer.raw
