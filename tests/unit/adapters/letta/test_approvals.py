"""Runs whose tool awaits an approval, and failures of Letta during the denial."""

import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from server.adapters.letta.client import LettaClient
from server.adapters.letta.gateway import LettaGateway
from server.ports import AgentEvent, RunEnded, RunStarted, StreamBrokenError, ToolCalled, ToolReturned, UsageReported
from server.protocol.shapes import TurnStatus, Usage
from tests.unit.adapters.letta.scripted import AGENT, HELLO, Answer, ScriptedLetta, says, scripted_letta, streams

CALL = {"tool_call_id": "call-1", "name": "memory_insert", "arguments": "{}"}
PENDING = [{"message_type": "approval_request_message", "tool_calls": [CALL]}]
NO_LONGER = [{"message_type": "assistant_message", "content": "Done."}]
TOKENS = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11, "step_count": 1}


def run(run_id: str, *chunks: dict[str, object]) -> Answer:
    lines = [{"message_type": "ping", "run_id": run_id}, *chunks]
    return streams(*(b"data: %b\n\n" % json.dumps(line).encode() for line in lines), b"data: [DONE]\n\n")


HELD = run(
    "run-1",
    {"message_type": "approval_request_message", "id": "m-1", "run_id": "run-1", "tool_call": CALL},
    {"message_type": "stop_reason", "stop_reason": "requires_approval"},
    {"message_type": "usage_statistics", **TOKENS},
)
REFUSED = run(
    "run-2",
    {"message_type": "stop_reason", "stop_reason": "error"},
    {
        "message_type": "error_message",
        "error_type": "internal_error",
        "detail": "CONFLICT: Cannot send a new message: The agent is waiting for approval on a tool call.",
    },
)
DONE = run(
    "run-3", {"message_type": "stop_reason", "stop_reason": "end_turn"}, {"message_type": "usage_statistics", **TOKENS}
)


@pytest.fixture
async def letta() -> AsyncIterator[tuple[ScriptedLetta, LettaClient]]:
    async with scripted_letta() as opened:
        yield opened


def answers(*posted: Answer, pending: Answer) -> Answer:
    """Answers each POST with the next of `posted`, and a GET with the `pending` call."""
    left = list(posted)

    async def answer(request: web.Request) -> web.StreamResponse:
        return await (pending if request.method == "GET" else left.pop(0))(request)

    return answer


async def send(client: LettaClient) -> list[AgentEvent]:
    async with LettaGateway(client).send(AGENT, HELLO) as events:
        return [event async for event in events]


def sent(letta: ScriptedLetta) -> list[list[str]]:
    """The kinds of messages of each send."""
    posted = [body for body in letta.bodies if isinstance(body, dict)]
    return [[str(message.get("type") or message["role"]) for message in body["messages"]] for body in posted]


async def test_a_run_and_the_run_of_its_denial_are_one_run_with_all_tokens(
    letta: tuple[ScriptedLetta, LettaClient],
) -> None:
    script, client = letta
    script.answer = answers(HELD, DONE, pending=says(PENDING))
    events = await send(client)
    assert events == [
        RunStarted("run-1"),
        ToolCalled("call-1", "memory_insert", "{}"),
        UsageReported(Usage(10, 1, 11, 0, 0, 1)),
        ToolReturned("call-1", "memory_insert", "denied"),
        UsageReported(Usage(20, 2, 22, 0, 0, 2)),
        RunEnded(TurnStatus.COMPLETED),
    ]
    assert sent(script) == [["user"], ["approval"]]


async def test_a_refused_message_is_sent_again_after_the_denial(letta: tuple[ScriptedLetta, LettaClient]) -> None:
    script, client = letta
    script.answer = answers(REFUSED, DONE, pending=says(PENDING))
    assert (await send(client))[-1] == RunEnded(TurnStatus.COMPLETED)
    assert sent(script) == [["user"], ["approval", "user"]]


@pytest.mark.parametrize("first", [HELD, REFUSED], ids=["held", "refused"])
@pytest.mark.parametrize(("status", "detail"), [(409, "busy"), (503, "away"), (404, "Conversation not found")])
async def test_a_denial_that_fails_breaks_the_stream_and_is_not_retried(
    letta: tuple[ScriptedLetta, LettaClient], first: Answer, status: int, detail: str
) -> None:
    """The run is then recovered by its id, since the message may have arrived."""
    script, client = letta
    script.answer = answers(first, says({"detail": detail}, status), pending=says(PENDING))
    with pytest.raises(StreamBrokenError):
        await send(client)
    assert len(sent(script)) == 2


async def test_a_pending_call_that_cannot_be_read_breaks_the_stream(letta: tuple[ScriptedLetta, LettaClient]) -> None:
    script, client = letta
    script.answer = answers(HELD, pending=says({"detail": "…"}, 503))
    with pytest.raises(StreamBrokenError):
        await send(client)
    assert sent(script) == [["user"]]


@pytest.mark.parametrize("first", [HELD, REFUSED], ids=["held", "refused"])
async def test_a_call_that_was_answered_meanwhile_fails_the_turn_as_retryable(
    letta: tuple[ScriptedLetta, LettaClient], first: Answer
) -> None:
    script, client = letta
    script.answer = answers(first, pending=says(NO_LONGER))
    end = (await send(client))[-1]
    assert isinstance(end, RunEnded)
    assert end.error is not None
    assert (end.status, end.error.retryable) == (TurnStatus.FAILED, True)
    assert sent(script) == [["user"]]
