"""Sending to Letta when the network or Letta misbehaves: what was sent, what is raised, and what the breaker learns."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from pydantic import SecretStr

from server.letta_adapter.client import LettaClient, Patience
from server.letta_adapter.gateway import LettaGateway
from server.ports import AgentBusyError, AgentHandle, RunEnded, RunStarted, StreamBrokenError
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience import Breaker
from tests.unit.letta.scripted import AGENT, HELLO, MEMBER, ScriptedLetta, cut, recorded, says, scripted_letta, streams

World = tuple[ScriptedLetta, LettaClient]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with scripted_letta() as opened:
        yield opened


async def send(client: LettaClient) -> list[object]:
    async with LettaGateway(client).send(AGENT, HELLO) as events:
        return [event async for event in events]


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


async def test_the_run_is_told_before_its_first_word(world: World) -> None:
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


async def test_a_silent_stream_is_broken() -> None:
    async with scripted_letta(Patience(silence=0.05)) as (letta, client):
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


async def test_nothing_is_sent_twice_when_the_answer_is_lost(world: World) -> None:
    letta, client = world

    async def vanish(request: web.Request) -> web.StreamResponse:
        await cut(request)
        return web.Response()

    letta.answer = vanish
    with pytest.raises(StreamBrokenError):
        await send(client)
    assert len(letta.requests) == 1


@pytest.mark.parametrize("status", [502, 504])
async def test_a_lost_answer_of_a_proxy_leaves_open_whether_it_was_sent(world: World, status: int) -> None:
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
async def test_a_refused_message_says_what_to_do(world: World, status: int, code: ErrorCode) -> None:
    letta, client = world
    letta.answer = says({"detail": "Conversation not found for actor org-secret"}, status=status)
    with pytest.raises(PlatformError) as refused:
        await send(client)
    assert refused.value.code is code
    assert "org-secret" not in refused.value.message


async def test_an_unreachable_letta_is_said_at_once_after_a_few_failures() -> None:
    breaker = Breaker("letta", ErrorCode.LETTA_UNAVAILABLE)
    nowhere = LettaClient("http://127.0.0.1:9", SecretStr("password"), breaker)
    for _ in range(breaker.threshold):
        assert not breaker.is_open
        with pytest.raises(PlatformError) as refused:
            await send(nowhere)
        assert refused.value.code is ErrorCode.LETTA_UNAVAILABLE
    assert breaker.is_open
    await nowhere.aclose()


async def test_no_request_leaves_without_a_members_id(world: World) -> None:
    letta, client = world
    for wrong in ("", "user-1", "default", f"{MEMBER}\n", MEMBER.upper()):
        with pytest.raises(ValueError, match="member"):
            async with LettaGateway(client).send(AgentHandle(wrong, "agent-1", "conv-1"), HELLO):
                pass
    assert letta.requests == []


async def test_cancelling_where_nothing_runs_is_no_error(world: World) -> None:
    letta, client = world
    letta.answer = says({"detail": "CONFLICT: No active runs to cancel"}, status=409)
    await LettaGateway(client).cancel(AGENT, None)
    (request,) = letta.requests
    assert request.path == "/v1/conversations/conv-1/cancel"


async def test_a_run_whose_model_broke_off_is_failed_whatever_letta_calls_it(world: World) -> None:
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


async def test_a_turn_goes_on_when_the_memory_cannot_be_shown_to_the_model(world: World) -> None:
    letta, client = world
    stream = streams(recorded("tool"))

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=500) if request.path.endswith("/recompile") else await stream(request)

    letta.answer = answer
    events = await send(client)
    assert isinstance(events[-1], RunEnded)
    assert [request.path.rsplit("/", 1)[-1] for request in letta.requests] == ["messages", "recompile"]
