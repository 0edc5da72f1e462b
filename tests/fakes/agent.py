"""A scripted agent in memory: an AgentGateway whose runs, as a real agent's, go on when their reader leaves.

Time passes only through the injected `Pace`, so a test decides when the next word comes and nothing ever sleeps.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from types import TracebackType
from typing import Literal, Self

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
from server.protocol.shapes import TurnError, TurnStatus, Usage

Pace = Callable[[float], Awaitable[None]]
"""Waits the given seconds: `asyncio.sleep` in virtual time, `at_once`, or a `Turnstile` a test opens."""

MODEL_FAILED = TurnError(ErrorCode.MODEL_ERROR, "The language model failed to answer.", retryable=True)


async def at_once(_seconds: float) -> None:
    """Does not wait, but lets every other task run once."""
    await asyncio.sleep(0)


class Turnstile:
    """A pace that lets one step of a run through per `allow`, or all of them after `open`."""

    def __init__(self) -> None:
        self._passes = asyncio.Semaphore(0)
        self._open = False

    async def __call__(self, _seconds: float) -> None:
        await self._passes.acquire()
        if self._open:
            self._passes.release()
            await asyncio.sleep(0)

    def allow(self, steps: int = 1) -> None:
        for _ in range(steps):
            self._passes.release()

    def open(self) -> None:
        self._open = True
        self.allow()


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool call of a reply and how it went."""

    name: str
    arguments: str = "{}"
    status: Literal["success", "error"] = "success"
    changed_memory: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What the agent does with one message. Waits (`first_token`, `per_word`) in seconds, handed to the pace.

    `error`: the run fails after its words. `breaks_after`: the reader's stream, not the run, breaks after that many
    events (0: before even the run's id is known). `stuck`: after its words the run goes on until it is cancelled.
    `deaf`: a cancel ends the run but not the stream. `refusal` is raised instead of sending anything. `refused`: what
    fails is that the model refuses what was sent. `step_limit`: it completes because it took so many steps.
    """

    words: tuple[str, ...] = ("Hello ", "there.")
    reasoning: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    usage: Usage | None = field(default_factory=lambda: Usage(100, 10, 110, 60, 0, 1))
    first_token: float = 0.0
    per_word: float = 0.0
    error: TurnError | None = None
    breaks_after: int | None = None
    stuck: bool = False
    deaf: bool = False
    refusal: Exception | None = None
    refused: bool = False
    step_limit: int | None = None

    @classmethod
    def of(cls, text: str, *, tools: tuple[Tool, ...] = ()) -> Self:
        """The reply that says `text` word by word, after calling `tools`."""
        return cls(words=tuple(re.findall(r"\S+\s*|\s+", text)), tools=tools)

    @property
    def text(self) -> str:
        return "".join(self.words)

    def steps(self, run_id: str) -> Iterator[tuple[float, AgentEvent]]:
        """The run's events, its end excepted, each with the seconds before it."""
        yield 0.0, RunStarted(run_id)
        wait = self.first_token
        for text in self.reasoning:
            yield wait, ReasoningDelta(text)
            wait = self.per_word
        for number, tool in enumerate(self.tools):
            call_id = f"{run_id}-call-{number}"
            yield wait, ToolCalled(call_id, tool.name, tool.arguments)
            yield 0.0, ToolReturned(call_id, tool.name, tool.status, tool.changed_memory)
            wait = self.per_word
        for word in self.words:
            yield wait, TextDelta(f"{run_id}-message", word)
            wait = self.per_word


@dataclass(slots=True)
class FakeRun:
    """One run: what was sent, the events so far, and who waits for more of them."""

    id: str
    agent: AgentHandle
    messages: tuple[OutgoingMessage, ...]
    reply: Reply
    created_at: datetime
    status: Literal["running", "completed", "failed", "cancelled"] = "running"
    events: list[AgentEvent] = field(default_factory=list)
    killed: bool = False
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    def grow(self, *events: AgentEvent) -> None:
        self.events.extend(events)
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def record(self) -> Run:
        return Run(self.id, self.status)

    async def read(self) -> AsyncGenerator[AgentEvent, None]:
        """The events as a connected reader gets them."""
        position = 0
        while True:
            if self.killed or (self.reply.breaks_after is not None and position >= self.reply.breaks_after):
                raise StreamBrokenError("the stream broke off")
            if position < len(self.events):
                event = self.events[position]
                position += 1
                yield event
                if isinstance(event, RunEnded):
                    return
            else:
                await self._grown.wait()


def echo(messages: Sequence[OutgoingMessage]) -> Reply:
    """Repeats the last message, word by word."""
    return Reply.of(f"You said: {messages[-1].content}")


class FakeAgentGateway:
    """Answers each send with the next planned reply, else with what `answer` makes of the messages.

    Use as a context manager: leaving it ends the runs that still go on. One run per conversation, like the real one:
    a second send raises AgentBusyError. Like the real one it remembers only completed turns.
    """

    def __init__(
        self,
        *,
        answer: Callable[[Sequence[OutgoingMessage]], Reply] = echo,
        pace: Pace = at_once,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.answer = answer
        self.pace = pace
        self.now = now
        self.down = False
        self.sent: list[FakeRun] = []
        self.cancels: list[tuple[AgentHandle, str | None]] = []
        self._planned: deque[Reply] = deque()
        self._known: dict[str, FakeRun] = {}
        self._locks: dict[str, FakeRun] = {}
        self._deleted: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._remembered: dict[str, list[tuple[str, str]]] = {}
        self._ids = count(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # For tests

    def plan(self, *replies: Reply) -> None:
        """Use these replies, in order, for the next sends."""
        self._planned.extend(replies)

    def plan_nothing(self) -> None:
        """Answer the next sends as usual, instead of the planned replies."""
        self._planned.clear()

    def remembered(self, agent: AgentHandle) -> list[tuple[str, str]]:
        """(role, text) of everything the agent's conversation holds."""
        return list(self._remembered.get(agent.conversation_id, ()))

    async def settled(self) -> None:
        """Return when every run that can end by itself has ended."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def kill(self) -> None:
        """Crash the service as by SIGKILL: streams break, its runs stay `running` and their conversations locked."""
        for task in self._tasks.values():
            task.cancel()
        for run in self._known.values():
            if run.status == "running":
                run.killed = True
                run.grow()

    def forget(self, run_id: str) -> None:
        """Delete the run from the service."""
        run = self._known.pop(run_id)
        if self._locks.get(run.agent.conversation_id) is run:
            del self._locks[run.agent.conversation_id]

    def delete(self, agent: AgentHandle) -> None:
        """Delete the agent, its conversation and its runs from the service."""
        self._deleted.add(agent.conversation_id)
        for run in [run for run in self._known.values() if run.agent.conversation_id == agent.conversation_id]:
            self.forget(run.id)

    # AgentGateway

    @asynccontextmanager
    async def send(
        self, agent: AgentHandle, messages: Sequence[OutgoingMessage]
    ) -> AsyncIterator[AsyncIterator[AgentEvent]]:
        self._must_answer()
        if agent.conversation_id in self._deleted:
            raise AgentGoneError
        if agent.conversation_id in self._locks:
            raise AgentBusyError(self._locks[agent.conversation_id].id)
        reply = self._planned.popleft() if self._planned else self.answer(messages)
        if reply.refusal is not None:
            raise reply.refusal
        run = FakeRun(f"run-{next(self._ids)}", agent, tuple(messages), reply, self.now())
        self._known[run.id] = self._locks[agent.conversation_id] = run
        self.sent.append(run)
        self._tasks[run.id] = asyncio.create_task(self._go(run), name=run.id)
        self._tasks[run.id].add_done_callback(lambda _: self._tasks.pop(run.id, None))
        await asyncio.sleep(0)
        stream = run.read()
        try:
            yield stream
        finally:
            await stream.aclose()

    async def cancel(self, agent: AgentHandle, run_id: str | None) -> None:
        self._must_answer()
        self.cancels.append((agent, run_id))
        run = self._locks.get(agent.conversation_id)
        if run is None:
            return
        task = self._tasks.get(run.id)
        if task is not None:
            task.cancel()
        self._end(run, "cancelled", RunEnded(TurnStatus.CANCELLED))

    async def run(self, agent: AgentHandle, run_id: str) -> Run | None:
        self._must_answer()
        run = self._known.get(run_id)
        return run.record if run is not None and run.agent.member_id == agent.member_id else None

    async def runs_within(self, agent: AgentHandle, seconds: float) -> list[Run]:
        self._must_answer()
        since = self.now() - timedelta(seconds=seconds)
        return [
            run.record
            for run in self._known.values()
            if run.agent.conversation_id == agent.conversation_id and run.created_at >= since
        ]

    async def reply(self, agent: AgentHandle, run_id: str) -> list[AgentEvent]:
        self._must_answer()
        run = self._known.get(run_id)
        if run is None or run.agent.member_id != agent.member_id:
            raise PlatformError(ErrorCode.NOT_FOUND)
        return list(run.events)

    # Runs

    async def _go(self, run: FakeRun) -> None:
        for wait, event in run.reply.steps(run.id):
            if not isinstance(event, RunStarted):
                await self.pace(wait)
            run.grow(event)
        if run.reply.stuck:
            await asyncio.Event().wait()
        await self.pace(0.0)
        if run.reply.error is not None:
            self._end(run, "failed", RunEnded(TurnStatus.FAILED, run.reply.error, run.reply.refused))
            return
        lines = [(message.role, message.content) for message in run.messages] + [("assistant", run.text)]
        self._remembered.setdefault(run.agent.conversation_id, []).extend(lines)
        if run.reply.usage is not None:
            run.grow(UsageReported(run.reply.usage))
        self._end(run, "completed", RunEnded(TurnStatus.COMPLETED, step_limit=run.reply.step_limit))

    def _end(self, run: FakeRun, status: Literal["completed", "failed", "cancelled"], end: RunEnded) -> None:
        run.status = status
        if self._locks.get(run.agent.conversation_id) is run:
            del self._locks[run.agent.conversation_id]
        if not (status == "cancelled" and run.reply.deaf):
            run.grow(end)

    def _must_answer(self) -> None:
        if self.down:
            raise PlatformError(ErrorCode.LETTA_UNAVAILABLE, retry_after=5.0)
