"""Talking to an agent: turns streamed in the foreground from the user's Letta conversation, and runs read afterwards.

Foreground, since background runs come in bursts; read to the end of the HTTP body, since the conversation's lock is
released after the last event; without `otid`, since Letta shares those between tenants.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import httpx
import structlog
from letta_client import APIConnectionError, APIStatusError

from server.letta_adapter.client import LettaClient, row, rows
from server.letta_adapter.errors import RefusedError, busy_run, is_service_fault, was_never_sent
from server.letta_adapter.memory import recompile
from server.letta_adapter.stream import (
    Chunk,
    StreamParser,
    edits_memory,
    end_of,
    failed,
    returned,
    text_of,
    usage_of,
)
from server.letta_adapter.transport import BODY, BROKEN
from server.ports import (
    AgentBusyError,
    AgentEvent,
    AgentGoneError,
    AgentHandle,
    OutgoingMessage,
    ReasoningDelta,
    Run,
    RunEnded,
    RunStarted,
    StreamBrokenError,
    TextDelta,
    ToolCalled,
    ToolReturned,
    UsageReported,
)
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnStatus, Usage
from server.resilience import retry_after_in

log = structlog.get_logger(__name__)

_PAGE: Final = 100
_RECORD: Final = ("id", "status", "created_at")
_RECOMPILE_SECONDS: Final = 5.0
_ENDED: Final[dict[TurnStatus, Literal["completed", "failed", "cancelled"]]] = {
    TurnStatus.COMPLETED: "completed",
    TurnStatus.FAILED: "failed",
    TurnStatus.CANCELLED: "cancelled",
}
_SAME_IN_OTID: Final = 34
"""Characters of a message's id (a UUID) that an `otid` made from it begins with; the rest counts the parts."""
_GATEWAY_LOST: Final = (502, 504)
"""A proxy before Letta lost the answer: the request may have arrived."""


class LettaGateway:
    """Implements `server.ports.AgentGateway`."""

    def __init__(self, client: LettaClient) -> None:
        self._client = client

    @asynccontextmanager
    async def send(
        self, agent: AgentHandle, messages: Sequence[OutgoingMessage]
    ) -> AsyncIterator[AsyncIterator[AgentEvent]]:
        """See the port. Entering also raises StreamBrokenError: the request may have arrived, but no answer came."""
        conversations = self._client.as_member(agent.member_id).conversations
        request = conversations.messages.with_streaming_response.create(
            agent.conversation_id,
            messages=[{"role": message.role, "content": message.content} for message in messages],
            streaming=True,
            stream_tokens=True,
            background=False,
            include_pings=True,
            extra_headers={"Accept": "text/event-stream", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(self._client.patience.silence, connect=self._client.patience.connect),
        )
        async with AsyncExitStack() as stack:
            response = await self._opened(lambda: stack.enter_async_context(request))
            events = self._events(agent, response.http_response)
            stack.push_async_callback(events.aclose)
            yield events

    async def cancel(self, agent: AgentHandle, run_id: str | None) -> None:
        """See the port. Frees the conversation at once, also from a run that died with Letta. Letta looks for the
        request only twice a second: a run about to end completes all the same, and is remembered."""
        member = self._client.as_member(agent.member_id)
        try:
            await self._client.repeatable(lambda: member.conversations.cancel(agent.conversation_id))
        except RefusedError as refusal:
            if refusal.status not in (404, 409):
                raise

    async def run(self, agent: AgentHandle, run_id: str) -> Run | None:
        record = await self._record(agent, run_id)
        return None if record is None else _run(record)

    async def runs_within(self, agent: AgentHandle, seconds: float) -> list[Run]:
        """See the port. The newest 100 at most."""
        member = self._client.as_member(agent.member_id)
        try:
            records, now = await self._client.read_dated(
                member, "/v1/runs/", rows(*_RECORD), conversation_id=agent.conversation_id, order="desc", limit=_PAGE
            )
        except RefusedError as refusal:
            if refusal.status == 404:
                return []
            raise
        since = now - timedelta(seconds=seconds)
        return [_run(record) for record in reversed(records) if datetime.fromisoformat(record["created_at"]) >= since]

    async def reply(self, agent: AgentHandle, run_id: str) -> list[AgentEvent]:
        """See the port. Of a failed or cancelled run Letta keeps no text. A run that still goes on has no end yet.

        A run's messages begin with those it was sent."""
        member = self._client.as_member(agent.member_id)
        record = await self._record(agent, run_id)
        if record is None:
            raise PlatformError(ErrorCode.NOT_FOUND)
        messages: list[Chunk] = []
        after: dict[str, str | int] = {}
        path, fields = f"/v1/runs/{run_id}/messages", rows("id", "message_type")
        while page := await self._client.read(member, path, fields, limit=_PAGE, order="asc", **after):
            messages += page
            after = {"after": page[-1]["id"]}
        said = messages[_number_sent(messages) :]
        names = _tool_names(said)
        recorded = (event for message in said for event in _recorded(message, names))
        events: list[AgentEvent] = [RunStarted(run_id), *recorded]
        if any(isinstance(event, ToolReturned) and edits_memory(event) for event in events):
            await self._recompile(agent)
        steps = await self._client.read(member, f"/v1/runs/{run_id}/steps", rows(), limit=_PAGE)
        if usage := _sum(steps):
            events.append(UsageReported(usage))
        if (end := _end(record)) is not None:
            events.append(end)
        return events

    async def _events(self, agent: AgentHandle, response: httpx.Response) -> AsyncGenerator[AgentEvent, None]:
        """The events of a response, all those of one network read without giving way in between."""
        parser = StreamParser()
        feed = parser.feed
        try:
            async for data in response.extensions[BODY].iter_any():
                for event in feed(data):
                    yield event
        except BROKEN as error:
            raise StreamBrokenError(f"the stream broke off: {type(error).__name__}") from error
        last = parser.end()
        if parser.edited_memory:
            await self._recompile(agent)
        for event in last:
            yield event

    async def _recompile(self, agent: AgentHandle) -> None:
        """Show the model the memory its tools have changed, before the next turn can begin. Failing, it is left to the
        next summary of the conversation: the model has its own tool calls before its eyes until then."""
        try:
            async with asyncio.timeout(_RECOMPILE_SECONDS):
                await recompile(self._client, agent)
        except (PlatformError, TimeoutError) as error:
            log.warning("letta.recompile_failed", conversation_id=agent.conversation_id, error=str(error))

    async def _record(self, agent: AgentHandle, run_id: str) -> Chunk | None:
        member = self._client.as_member(agent.member_id)
        try:
            record: Chunk = await self._client.read(member, f"/v1/runs/{run_id}", row(*_RECORD))
        except RefusedError as refusal:
            if refusal.status in (400, 404):
                return None
            raise
        return record

    async def _opened(self, open_stream: Callable[[], Awaitable[Any]]) -> Any:
        """Send, and wait for the response to begin. A send is never repeated: it would be a second turn."""
        breaker = self._client.breaker
        breaker.admit()
        answered = None
        try:
            response = await open_stream()
            answered = True
        except APIConnectionError as error:
            answered = False
            if was_never_sent(error):
                raise PlatformError(ErrorCode.LETTA_UNAVAILABLE, retry_after=breaker.cooldown) from error
            raise StreamBrokenError("no answer to the message") from error
        except APIStatusError as error:
            answered = None if error.status_code == 500 else not is_service_fault(error)
            raise _unsent(error, breaker.cooldown) from error
        finally:
            if answered is None:
                breaker.undecided()
            elif answered:
                breaker.succeeded()
            else:
                breaker.failed()
        return response


def _unsent(error: APIStatusError, cooldown: float) -> Exception:
    """What a refused send raises."""
    if error.status_code == 409:
        return AgentBusyError(busy_run(error))
    if error.status_code in _GATEWAY_LOST:
        return StreamBrokenError(f"no answer to the message: {error.status_code}")
    if is_service_fault(error):
        retry_after = retry_after_in(error.response.headers)
        return PlatformError(ErrorCode.LETTA_UNAVAILABLE, retry_after=retry_after or cooldown)
    refusal = RefusedError(error)
    log.warning("letta.message_refused", status=refusal.status, detail=refusal.detail)
    return AgentGoneError() if refusal.status == 404 else refusal


def _run(record: Chunk) -> Run:
    end = _end(record)
    status: Literal["running", "completed", "failed", "cancelled"] = "running"
    if end is not None:
        status = _ENDED[end.status]
    return Run(record["id"], status)


def _end(record: Chunk) -> RunEnded | None:
    """How a recorded run ended; None while it goes on."""
    status, stop_reason = record["status"], record.get("stop_reason")
    if status in ("created", "running") and not stop_reason:
        return None
    reported = (record.get("metadata") or {}).get("error")
    failure: RunEnded | None = None
    if isinstance(reported, dict):
        failure = failed(reported.get("error_type"), reported.get("detail"))
    elif reported:
        failure = failed(None, str(reported))
    return end_of(stop_reason or ("end_turn" if status == "completed" else status), failure)


def _number_sent(messages: Sequence[Chunk]) -> int:
    """How many of a run's messages it was sent: all up to the last user message of ours, so also a reply it was
    reminded of. What Letta itself writes in a user's name (a summary, say) has an `otid` made from its id."""
    return max((place for place, message in enumerate(messages, 1) if _is_sent(message)), default=0)


def _is_sent(message: Chunk) -> bool:
    made_by_letta = str(message["id"]).removeprefix("message-")[:_SAME_IN_OTID]
    return message["message_type"] == "user_message" and (message.get("otid") or "")[:_SAME_IN_OTID] != made_by_letta


def _calls(message: Chunk) -> Sequence[Chunk]:
    """The tool calls of a stored message."""
    if message["message_type"] != "tool_call_message":
        return []
    return message.get("tool_calls") or [message["tool_call"]]


def _tool_names(messages: Sequence[Chunk]) -> Mapping[str, str]:
    """The names of the tools that were called, by the ids of their calls."""
    return {call["tool_call_id"]: call["name"] for message in messages for call in _calls(message)}


def _recorded(message: Chunk, names: Mapping[str, str]) -> Sequence[AgentEvent]:
    """What a stored message would have been in the stream."""
    match message["message_type"]:
        case "assistant_message" if text := text_of(message.get("content")):
            return [TextDelta(message["id"], text)]
        case "reasoning_message" if reasoning := message.get("reasoning"):
            return [ReasoningDelta(reasoning)]
        case "tool_call_message":
            return [ToolCalled(call["tool_call_id"], call["name"], call["arguments"]) for call in _calls(message)]
        case "tool_return_message":
            return returned(message, names)
    return []


def _sum(steps: Sequence[Chunk]) -> Usage | None:
    """The tokens of a run from those of its steps. `/usage` knows neither cached tokens nor the number of calls."""
    used = [usage_of(step) for step in steps if step.get("total_tokens")]
    if not used:
        return None
    return Usage(
        prompt_tokens=sum(step.prompt_tokens for step in used),
        completion_tokens=sum(step.completion_tokens for step in used),
        total_tokens=sum(step.total_tokens for step in used),
        cached_tokens=sum(step.cached_tokens for step in used),
        reasoning_tokens=sum(step.reasoning_tokens for step in used),
        model_calls=len(used),
    )
