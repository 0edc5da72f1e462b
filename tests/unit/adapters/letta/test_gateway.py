"""Sending to Letta when the network or Letta fails: what was sent, what is raised, and what the breaker counts."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from pydantic import SecretStr

from server.adapters.letta.client import LettaClient, Timeouts
from server.adapters.letta.gateway import LettaGateway
from server.ports import AgentBusyError, AgentGoneError, AgentHandle, RunEnded, RunStarted, StreamBrokenError, TextDelta
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnStatus
from server.resilience import Breaker
from tests.unit.adapters.letta.scripted import (
    AGENT,
    HELLO,
    MEMBER,
    ScriptedLetta,
    cut,
    recorded,
    says,
    scripted_letta,
    streams,
)

World = tuple[ScriptedLetta, LettaClient]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with scripted_letta() as opened:
        yield opened


async def send(client: LettaClient) -> list[object]:
    async with LettaGateway(client).send(AGENT, HELLO) as events:
        return [event async for event in events]


def test_the_sdk_is_imported_whole_before_the_first_message() -> None:
    code = "import sys, server.adapters.letta.gateway; print('letta_client.resources.conversations' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


async def test_a_turn_is_one_foreground_request_as_the_member_without_an_otid(world: World) -> None:
    letta, client = world
    letta.answer = streams(recorded("plain"))
    await send(client)
    (request,), (body,) = letta.requests, letta.bodies
    assert (request.method, request.path) == ("POST", "/v1/conversations/conv-1/messages")
    assert request.headers["user_id"] == MEMBER
    assert request.headers["Authorization"] == "Bearer password"
    assert body == {
        "messages": [{"role": "user", "content": "Hello"}],
        "streaming": True,
        "stream_tokens": True,
        "background": False,
        "include_pings": True,
    }


async def test_the_run_id_is_emitted_before_its_first_text(world: World) -> None:
    letta, client = world
    go_on = asyncio.Event()
    ping = recorded("plain").split(b"\n\n")[0]

    async def wait(request: web.Request) -> None:
        await go_on.wait()

    letta.answer = streams(ping + b"\n\n", then=wait)
    async with LettaGateway(client).send(AGENT, HELLO) as events:
        assert isinstance(await anext(events), RunStarted)
        go_on.set()


async def test_the_body_is_read_to_its_end_and_not_to_done(world: World) -> None:
    letta, client = world
    released = asyncio.Event()

    async def release_the_lock(_request: web.Request) -> None:
        released.set()

    letta.answer = streams(recorded("plain"), then=release_the_lock)
    events = await send(client)
    assert released.is_set()
    assert isinstance(events[-1], RunEnded)


async def test_a_cut_connection_breaks_the_stream(world: World) -> None:
    letta, client = world
    letta.answer = streams(recorded("plain")[:600], then=cut)
    with pytest.raises(StreamBrokenError):
        await send(client)


async def test_a_body_that_ends_early_breaks_the_stream(world: World) -> None:
    letta, client = world
    letta.answer = streams(recorded("plain")[:600])
    with pytest.raises(StreamBrokenError):
        await send(client)


async def test_an_idle_stream_is_broken() -> None:
    async with scripted_letta(Timeouts(idle=0.05)) as (letta, client):
        gone = asyncio.Event()

        async def silence(_request: web.Request) -> None:
            await gone.wait()

        letta.answer = streams(recorded("plain")[:600], then=silence)
        with pytest.raises(StreamBrokenError):
            await send(client)
        gone.set()


async def test_leaving_closes_the_connection(world: World) -> None:
    letta, client = world
    closed = asyncio.Event()

    async def until_closed(_request: web.Request) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    letta.answer = streams(recorded("plain")[:600], then=until_closed)
    async with LettaGateway(client).send(AGENT, HELLO) as events:
        await anext(events)
    await closed.wait()


async def test_a_busy_conversation_names_its_run(world: World) -> None:
    letta, client = world
    letta.answer = says({"detail": "CONFLICT: …", "run_id": "run-7"}, status=409)
    with pytest.raises(AgentBusyError) as busy:
        await send(client)
    assert busy.value.run_id == "run-7"
    assert not letta.breaker.is_open


async def test_a_message_whose_answer_is_lost_is_not_sent_again(world: World) -> None:
    letta, client = world

    async def vanish(request: web.Request) -> web.StreamResponse:
        await cut(request)
        return web.Response()

    letta.answer = vanish
    with pytest.raises(StreamBrokenError):
        await send(client)
    assert len(letta.requests) == 1


@pytest.mark.parametrize("status", [502, 504])
async def test_a_gateway_error_of_a_proxy_means_that_the_message_may_have_arrived(world: World, status: int) -> None:
    letta, client = world
    letta.answer = says({}, status=status)
    with pytest.raises(StreamBrokenError):
        await send(client)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, ErrorCode.LETTA_UNAVAILABLE),
        (503, ErrorCode.LETTA_UNAVAILABLE),
        (401, ErrorCode.LETTA_UNAVAILABLE),
        (404, ErrorCode.AGENT_UNAVAILABLE),
        (422, ErrorCode.INTERNAL_ERROR),
    ],
)
async def test_a_refused_message_raises_the_error_of_its_status(world: World, status: int, code: ErrorCode) -> None:
    letta, client = world
    letta.answer = says({"detail": "Conversation not found for actor org-secret"}, status=status)
    with pytest.raises(PlatformError) as refused:
        await send(client)
    assert refused.value.code is code
    assert isinstance(refused.value, AgentGoneError) == (status == 404)
    assert "org-secret" not in refused.value.message


async def test_an_unreachable_letta_opens_the_breaker() -> None:
    breaker = Breaker("letta", ErrorCode.LETTA_UNAVAILABLE)
    nowhere = LettaClient("http://127.0.0.1:9", SecretStr("password"), breaker)
    for _ in range(breaker.threshold):
        assert not breaker.is_open
        with pytest.raises(PlatformError) as refused:
            await send(nowhere)
        assert refused.value.code is ErrorCode.LETTA_UNAVAILABLE
    assert breaker.is_open
    await nowhere.aclose()


async def test_no_request_is_sent_without_a_members_id(world: World) -> None:
    letta, client = world
    for wrong in ("", "user-1", "default", f"{MEMBER}\n", MEMBER.upper()):
        with pytest.raises(ValueError, match="member"):
            async with LettaGateway(client).send(AgentHandle(wrong, "agent-1", "conv-1"), HELLO):
                pass
    assert letta.requests == []


@pytest.mark.parametrize(
    ("status", "detail"), [(409, "CONFLICT: No active runs to cancel"), (404, "Conversation not found with id=conv-1")]
)
async def test_cancelling_without_an_active_run_is_not_an_error(world: World, status: int, detail: str) -> None:
    letta, client = world
    letta.answer = says({"detail": detail}, status=status)
    await LettaGateway(client).cancel(AGENT, None)
    (request,) = letta.requests
    assert request.path == "/v1/conversations/conv-1/cancel"


async def test_a_run_whose_model_failed_during_the_reply_is_failed(world: World) -> None:
    letta, client = world
    letta.answer = says(
        {
            "id": "run-1",
            "status": "completed",
            "stop_reason": "llm_api_error",
            "created_at": "2026-01-02T03:04:05.678Z",
        }
    )
    run = await LettaGateway(client).run(AGENT, "run-1")
    assert run is not None
    assert run.status == "failed"


async def test_a_turn_continues_when_recompiling_the_memory_fails(world: World) -> None:
    letta, client = world
    stream = streams(recorded("tool"))

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=500) if request.path.endswith("/recompile") else await stream(request)

    letta.answer = answer
    events = await send(client)
    assert isinstance(events[-1], RunEnded)
    assert [request.path.rsplit("/", 1)[-1] for request in letta.requests] == ["messages", "recompile"]


def _message(number: int, kind: str, content: str, *, ours: bool = False) -> dict[str, object]:
    """A run's message; Letta derives the otid of its own messages from the message's id."""
    id_ = f"0000000{number}-0000-4000-8000-000000000000"
    otid = "7c0a9111-9ef9-4489-8e03-97507d00f732" if ours else f"{id_[:-2]}80"
    return {"id": f"message-{id_}", "message_type": kind, "content": content, "otid": otid}


async def test_a_recorded_reply_excludes_the_messages_sent_to_its_run(world: World) -> None:
    letta, client = world
    run = {"id": "run-1", "status": "completed", "stop_reason": "end_turn", "created_at": "2026-01-02T03:04:05Z"}
    messages = [
        _message(1, "user_message", "the message before", ours=True),
        _message(2, "assistant_message", "half a reply […] (interrupted)"),
        _message(3, "user_message", "the message", ours=True),
        _message(4, "assistant_message", "the reply"),
        _message(5, "user_message", "a summary of Letta's"),
    ]

    async def answer(request: web.Request) -> web.StreamResponse:
        pages: dict[str, object] = {"messages": [] if "after" in request.query else messages, "steps": []}
        return web.json_response(pages.get(request.path.rsplit("/", 1)[-1], run))

    letta.answer = answer
    events = await LettaGateway(client).reply(AGENT, "run-1")
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["the reply"]
    assert events[-1] == RunEnded(TurnStatus.COMPLETED)


async def test_a_page_instead_of_the_stream_means_that_the_message_may_have_arrived(world: World) -> None:
    letta, client = world

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>All is well</html>", content_type="text/html")

    letta.answer = answer
    with pytest.raises(StreamBrokenError):
        await send(client)


@pytest.mark.parametrize(
    "line",
    [
        b'data: {"message_type": "assistant_message", "content": "no id"}',
        b'data: {"message_type": "tool_call_message", "tool_call": "no object"}',
        b'data: {"message_type": "error_message", "detail": 5, "error_type": {}}',
        b'data: {"message_type": "usage_statistics", ',
        b"data: {\xff\xfe}",
    ],
)
async def test_an_unreadable_event_breaks_the_stream(world: World, line: bytes) -> None:
    letta, client = world
    letta.answer = streams(b'data: {"message_type": "ping", "run_id": "run-1"}\n\n', line + b"\n\n")
    with pytest.raises(StreamBrokenError):
        await send(client)


async def test_a_rate_limited_message_has_the_seconds_to_wait(world: World) -> None:
    letta, client = world

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "37"})

    letta.answer = answer
    with pytest.raises(PlatformError) as refused:
        await send(client)
    assert (refused.value.code, refused.value.retry_after) == (ErrorCode.LETTA_UNAVAILABLE, 37)
