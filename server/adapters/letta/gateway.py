"""Sends messages to an agent: streams runs in the foreground from the user's Letta conversation, and reads ended runs.

In the foreground, since background runs deliver their text in bursts. To the end of the HTTP body, since the
conversation's lock is released after the last event. Without `otid`, since Letta shares those between tenants.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import httpx
import structlog
from letta_client import APIConnectionError, APIStatusError

from server.adapters.aiohttp_transport import BODY, BROKEN
from server.adapters.letta.approvals import Denial, denial, is_denial
from server.adapters.letta.client import LettaClient, row, rows
from server.adapters.letta.errors import RefusedError, busy_run, is_service_fault, was_never_sent
from server.adapters.letta.memory import recompile
from server.adapters.letta.records import awaited_approval, end_of_record, events_of, run_of, usage_of_steps
from server.adapters.letta.stream import Chunk, StreamParser, edits_memory
from server.ports import (
    AgentBusyError,
    AgentEvent,
    AgentGoneError,
    AgentHandle,
    OutgoingMessage,
    Run,
    RunStarted,
    StreamBrokenError,
    ToolReturned,
    UsageReported,
)
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Usage
from server.resilience import retry_after_in

log = structlog.get_logger(__name__)

_PAGE: Final = 100
_RECORD: Final = ("id", "status", "created_at")
_RECOMPILE_SECONDS: Final = 5.0
_MOST_DENIALS: Final = 5
"""Per turn: an agent that keeps calling a tool that is denied costs a model call each time."""
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
        sent = [{"role": message.role, "content": message.content} for message in messages]
        async with AsyncExitStack() as stack:
            events = self._events(stack, agent, sent, await self._post(stack, agent, sent))
            stack.push_async_callback(events.aclose)
            yield events

    async def _post(self, stack: AsyncExitStack, agent: AgentHandle, messages: Sequence[Any]) -> httpx.Response:
        """Send; the response stays open until the stack is closed. Raises as `send` does."""
        conversations = self._client.as_member(agent.member_id).conversations
        request = conversations.messages.with_streaming_response.create(
            agent.conversation_id,
            messages=messages,
            streaming=True,
            stream_tokens=True,
            background=False,
            include_pings=True,
            extra_headers={"Accept": "text/event-stream", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(self._client.timeouts.idle, connect=self._client.timeouts.connect),
        )
        response = await self._opened(lambda: stack.enter_async_context(request))
        answer: httpx.Response = response.http_response
        return answer

    async def cancel(self, agent: AgentHandle, run_id: str | None) -> None:
        """See the port. Unlocks the conversation at once, also after a run that crashed with Letta. Letta polls for the
        request twice a second, so a run that is about to end may complete, and stays in the agent's memory."""
        member = self._client.as_member(agent.member_id)
        try:
            await self._client.repeatable(lambda: member.conversations.cancel(agent.conversation_id))
        except RefusedError as refusal:
            if refusal.status not in (404, 409):
                raise

    async def run(self, agent: AgentHandle, run_id: str) -> Run | None:
        """See the port. A run that awaited an approval continues in the run that its denial began."""
        record = await self._record(agent, run_id)
        if record is None:
            return None
        *_, last = await self._with_continuations(agent, record)
        return replace(run_of(last), id=run_id)

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
        return [run_of(record) for record in reversed(records) if datetime.fromisoformat(record["created_at"]) >= since]

    async def reply(self, agent: AgentHandle, run_id: str) -> list[AgentEvent]:
        """See the port. Letta stores no text of a failed or cancelled run. A run that is still active has no end."""
        member = self._client.as_member(agent.member_id)
        record = await self._record(agent, run_id)
        if record is None:
            raise PlatformError(ErrorCode.NOT_FOUND)
        events: list[AgentEvent] = [RunStarted(run_id)]
        used: list[Usage] = []
        runs = await self._with_continuations(agent, record)
        for run in runs:
            events += events_of(await self._messages(agent, run["id"]))
            steps = await self._client.read(member, f"/v1/runs/{run['id']}/steps", rows(), limit=_PAGE)
            used += filter(None, [usage_of_steps(steps)])
        if any(isinstance(event, ToolReturned) and edits_memory(event) for event in events):
            await self._recompile(agent)
        if used:
            events.append(UsageReported(sum(used, Usage())))
        if (end := end_of_record(runs[-1])) is not None:
            events.append(end)
        return events

    async def _messages(self, agent: AgentHandle, run_id: str) -> list[Chunk]:
        """All messages of a run, oldest first."""
        member = self._client.as_member(agent.member_id)
        messages: list[Chunk] = []
        after: dict[str, str | int] = {}
        path, fields = f"/v1/runs/{run_id}/messages", rows("id", "message_type")
        while page := await self._client.read(member, path, fields, limit=_PAGE, order="asc", **after):
            messages += page
            after = {"after": page[-1]["id"]}
        return messages

    async def _with_continuations(self, agent: AgentHandle, record: Chunk) -> list[Chunk]:
        """The run and the runs that denials of its tools began, oldest first."""
        runs = [record]
        if awaited_approval(record):
            member = self._client.as_member(agent.member_id)
            query: Any = {"conversation_id": agent.conversation_id, "order": "desc", "limit": _PAGE}
            newer = await self._client.read(member, "/v1/runs/", rows(*_RECORD), **query)
            for run in reversed(newer):
                later = datetime.fromisoformat(run["created_at"]) > datetime.fromisoformat(record["created_at"])
                if later and awaited_approval(runs[-1]) and is_denial(await self._messages(agent, run["id"])):
                    runs.append(run)
        return runs

    async def _events(
        self, stack: AsyncExitStack, agent: AgentHandle, messages: Sequence[Any], response: httpx.Response
    ) -> AsyncGenerator[AgentEvent, None]:
        """The events of a turn; those of one network read come without a pause. A run whose tool awaits an approval
        continues after its denial."""
        parser = StreamParser()
        for denials_left in reversed(range(_MOST_DENIALS + 1)):
            read, feed = response.extensions[BODY].readany, parser.feed
            try:
                while data := await read():
                    for event in feed(data):
                        yield event
            except BROKEN as error:
                raise StreamBrokenError(f"the stream broke off: {type(error).__name__}") from error
            last = parser.end()
            if parser.edited_memory:
                await self._recompile(agent)
            if not (parser.awaits_approval and denials_left and (held := await self._denial(agent))):
                for event in last:
                    yield event
                return
            for event in (*last[:-1], *held.returns):
                yield event
            response = await self._deny(stack, agent, [held.message, *(messages if parser.is_refused else [])])
            parser = StreamParser(parser, denied={returned.call_id for returned in held.returns})

    async def _denial(self, agent: AgentHandle) -> Denial | None:
        """The denial of the calls that await an approval; None if there are none. Raises StreamBrokenError."""
        try:
            return await denial(self._client, agent)
        except PlatformError as error:
            raise StreamBrokenError("the tools that wait for an approval are not known") from error

    async def _deny(self, stack: AsyncExitStack, agent: AgentHandle, messages: Sequence[Any]) -> httpx.Response:
        """Send a denial. Every failure raises StreamBrokenError, since the turn's message must not be sent again."""
        try:
            return await self._post(stack, agent, messages)
        except (AgentBusyError, PlatformError) as error:
            raise StreamBrokenError("no answer to the denial") from error

    async def _recompile(self, agent: AgentHandle) -> None:
        """Update the system prompt with the memory that tools have changed, before the next turn begins. After a
        failure, the next summary of the conversation does; until then the model sees its own tool calls."""
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
        """Send, and wait for the response to begin. A send is never retried: it could begin a second turn."""
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
    """The exception for a refused send."""
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
