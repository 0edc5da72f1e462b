"""The scripted model: its directives, and the gates and the log by which tests wait without sleeping."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from tests.model_script import last_directive
from tests.scripted_model import create_app

Client = TestClient[Any, Any]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with TestClient(TestServer(create_app(), handler_cancellation=True)) as client:
        yield client


def ask(client: Client, text: str, **more: Any) -> Any:
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": text}], **more}
    return client.post("/v1/chat/completions", json=body, headers={"Authorization": "Bearer sk-ann"})


async def answer(client: Client, text: str, **more: Any) -> str:
    response = await ask(client, text, **more)
    return str((await response.json())["choices"][0]["message"]["content"])


async def read_words(response: ClientResponse, count: int) -> list[str]:
    """The next words of a stream."""
    words: list[str] = []
    while len(words) < count:
        line = await response.content.readline()
        if line.startswith(b"data: {"):
            delta = json.loads(line[6:])["choices"][0]["delta"]
            words += [delta["content"]] if delta.get("content") else []
    return words


async def state(client: Client) -> str:
    return str((await (await client.get("/log")).json())[-1]["state"])


async def seen_in_state(client: Client, wanted: str) -> None:
    """Wait until the last request in the log has this state."""
    async with asyncio.timeout(10):
        while [seen["state"] for seen in await (await client.get("/log")).json()][-1:] != [wanted]:
            pass


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("ECHO one\nECHO two", "ECHO two"),
        ("forgotten: SLOW 3 0.1\n\nERR 500", "ERR 500"),
        ('CALL note {"a": {"b": "HANG"}} and DROP', "DROP"),
        ('CALL note {"a": {"b": "HANG"}}', 'CALL note {"a": {"b": "HANG"}}'),
        ('CALLS [["note", {"a": "HANG"}], ["note", {}]]', 'CALLS [["note", {"a": "HANG"}], ["note", {}]]'),
        ("the HANGAR and SLOW motion", None),
    ],
)
def test_the_last_directive_is_used(text: str, source: str | None) -> None:
    found = last_directive(text)

    assert (found.source if found else None) == source


async def test_slow_sends_so_many_words(client: Client) -> None:
    assert await answer(client, "SLOW 4 0") == "w0 w1 w2 w3"


async def test_echo_repeats_the_rest_of_the_line(client: Client) -> None:
    assert await answer(client, "please ECHO a  b\nnext line") == "a  b"


async def test_err_responds_with_the_status(client: Client) -> None:
    response = await ask(client, "ERR 503", stream=True)

    assert response.status == 503
    assert await state(client) == "refused"


async def test_err_with_times_recovers(client: Client) -> None:
    statuses = [(await ask(client, "ERR 500 2")).status for _ in range(3)]

    assert statuses == [500, 500, 200]


async def test_reason_streams_reasoning_before_the_answer(client: Client) -> None:
    reply = await (await ask(client, "REASON")).json()

    assert reply["choices"][0]["message"]["reasoning_content"] == "thinking hard about it"
    assert reply["choices"][0]["message"]["content"] == "the answer"
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


async def test_call_calls_the_tool_then_reports_its_result(client: Client) -> None:
    called = (await (await ask(client, 'CALL note {"text": "x"}')).json())["choices"][0]["message"]
    messages = [
        {"role": "user", "content": 'CALL note {"text": "x"}'},
        called,
        {"role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": "noted"},
    ]

    assert called["tool_calls"][0]["function"] == {"name": "note", "arguments": '{"text": "x"}'}
    assert await answer(client, "", messages=messages) == "done: noted"


async def test_a_call_waits_at_its_gate(client: Client) -> None:
    held = asyncio.ensure_future(ask(client, 'CALL AT three note {"text": "x"}'))
    await client.get("/gate/three")
    assert not held.done()

    await client.post("/gate/three")

    called = (await (await held).json())["choices"][0]["message"]
    assert called["tool_calls"][0]["function"] == {"name": "note", "arguments": '{"text": "x"}'}


async def test_a_gate_holds_the_reply_between_two_words_until_opened(client: Client) -> None:
    response = await ask(client, "GATE one 2 1", stream=True)
    assert await read_words(response, 2) == ["w0", " w1"]
    reached = await (await client.get("/gate/one")).json()
    assert reached == {"name": "one", "waiting": 1}

    await client.post("/gate/one")

    assert await read_words(response, 1) == [" w2"]
    await response.read()
    assert await state(client) == "finished"


async def test_a_closed_gate_holds_again(client: Client) -> None:
    await client.post("/gate/two")
    assert await answer(client, "GATE two 0 1") == "w0"
    await client.delete("/gate/two")

    held = asyncio.ensure_future(answer(client, "GATE two 0 1"))
    await client.get("/gate/two")
    assert not held.done()
    await client.post("/gate/two")

    assert await held == "w0"


async def test_stall_stops_sending_and_the_log_records_the_disconnect(client: Client) -> None:
    response = await ask(client, "STALL 2", stream=True)
    assert await read_words(response, 2) == ["w0", " w1"]
    assert await state(client) == "running"

    response.close()

    await seen_in_state(client, "gone")


async def test_hang_sends_no_status_line(client: Client) -> None:
    hanging = asyncio.ensure_future(ask(client, "HANG", stream=True))
    await seen_in_state(client, "running")
    assert not hanging.done()

    hanging.cancel()

    await seen_in_state(client, "gone")


async def test_drop_cuts_the_connection_after_three_words(client: Client) -> None:
    response = await ask(client, "DROP", stream=True)
    assert await read_words(response, 3) == ["w0", " w1", " w2"]

    with pytest.raises(ClientPayloadError):
        await response.read()
    assert await state(client) == "gone"


async def test_the_log_has_key_user_and_directive(client: Client) -> None:
    await answer(client, "ECHO first", user="user-1")
    await answer(client, "hello")

    log = await (await client.get("/log", params={"contains": "ECHO"})).json()

    assert len(log) == 1
    assert log[0]["authorization"] == "Bearer sk-ann"
    assert (log[0]["number"], log[0]["user"], log[0]["directive"]) == (1, "user-1", "ECHO first")
    await client.delete("/log")
    assert await (await client.get("/log")).json() == []


async def test_any_other_text_is_answered_by_the_demo_model(client: Client) -> None:
    assert "demo model" in await answer(client, "hello")
