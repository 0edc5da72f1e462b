"""Access to an agent: messages sent, the events of a run, and the agent's memory."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import ToolStatus, TurnError, TurnStatus, Usage


@dataclass(frozen=True, slots=True)
class AgentHandle:
    """The ids of a user's agent: `member_id` is the identity that every request acts as."""

    member_id: str
    agent_id: str
    conversation_id: str


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """One message of a send. `assistant`: an earlier reply that is missing from the agent's memory."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(slots=True)
class RunStarted:
    run_id: str


@dataclass(slots=True)
class ReasoningDelta:
    text: str


@dataclass(slots=True)
class TextDelta:
    """A piece of the reply. Deltas of one message share `message_id`; a turn may hold several messages."""

    message_id: str
    text: str


@dataclass(slots=True)
class ToolCalled:
    """A tool call, whole. `arguments` is the JSON text the model wrote."""

    call_id: str
    name: str
    arguments: str


@dataclass(slots=True)
class ToolReturned:
    """The result of one tool call. `denied`: it needs an approval, which the platform cannot give. `changed_memory`: it
    has changed the agent's memory."""

    call_id: str
    name: str
    status: ToolStatus
    changed_memory: bool = False


@dataclass(slots=True)
class UsageReported:
    usage: Usage


@dataclass(slots=True)
class RunEnded:
    """The end of the run. `error` is set for failed ones.

    `refused`: the model refused the request for its content, so a retry would be refused too. `step_limit`: the run
    ended because it reached this number of steps, not because the agent was done.
    """

    status: Literal[TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED]
    error: TurnError | None = None
    refused: bool = False
    step_limit: int | None = None


AgentEvent = RunStarted | ReasoningDelta | TextDelta | ToolCalled | ToolReturned | UsageReported | RunEnded


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the agent as its service records it."""

    id: str
    status: Literal["running", "completed", "failed", "cancelled"]


class AgentBusyError(Exception):
    """The conversation is locked by a run (`run_id`, where the service says which)."""

    def __init__(self, run_id: str | None) -> None:
        self.run_id = run_id
        super().__init__(f"the conversation is busy with {run_id or 'an unknown run'}")


class StreamBrokenError(Exception):
    """The stream of a run broke before its end; the run itself may continue."""


class AgentGoneError(PlatformError):
    """The service did not find the agent or its conversation. Nothing was sent. The answer must be verified with a
    second request before the agent counts as deleted."""

    def __init__(self) -> None:
        sentence = "Your agent could not be found. Try again shortly."
        super().__init__(ErrorCode.AGENT_UNAVAILABLE, sentence, retry_after=5.0)


class AgentGateway(Protocol):
    """Sends messages to an agent and reads its runs."""

    def send(
        self, agent: AgentHandle, messages: Sequence[OutgoingMessage]
    ) -> AbstractAsyncContextManager[AsyncIterator[AgentEvent]]:
        """Send, and stream the run to the end of its HTTP body. Leaving the context closes only the stream.

        Entering raises AgentBusyError, AgentGoneError, PlatformError(letta_unavailable) when nothing was sent, or
        StreamBrokenError when the message may have arrived but no answer came. Iterating raises StreamBrokenError when
        the connection breaks.
        """
        ...

    async def cancel(self, agent: AgentHandle, run_id: str | None) -> None:
        """Cancel the conversation's active run. It is not an error if there is none, or no such conversation."""
        ...

    async def run(self, agent: AgentHandle, run_id: str) -> Run | None:
        """One run; None if the service does not have it."""
        ...

    async def runs_within(self, agent: AgentHandle, seconds: float) -> list[Run]:
        """The conversation's runs created within the last `seconds` by its service's clock, oldest first."""
        ...

    async def reply(self, agent: AgentHandle, run_id: str) -> list[AgentEvent]:
        """The recorded run as the events of its stream: text, tools, usage, end.

        The text of a failed or cancelled run may be missing. Raises PlatformError(not_found).
        """
        ...


@dataclass(frozen=True, slots=True)
class MemoryBlock:
    """`limit` in characters."""

    label: str
    value: str
    limit: int
    description: str | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Passage:
    id: str
    text: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class PassagePage:
    data: tuple[Passage, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class ContextWindow:
    """The use of the agent's context window, in tokens."""

    window: int
    used: int
    system: int
    blocks: int
    tools: int
    messages: int


class AgentMemory(Protocol):
    """The agent's memory. Every method raises AgentGoneError if the service does not find the agent."""

    async def blocks(self, agent: AgentHandle) -> list[MemoryBlock]: ...

    async def update_block(self, agent: AgentHandle, label: str, value: str) -> MemoryBlock:
        """Raises PlatformError(not_found | too_large)."""
        ...

    async def passages(self, agent: AgentHandle, query: str | None, limit: int, before: str | None) -> PassagePage:
        """Archival memory, newest first, or what matches `query`."""
        ...

    async def add_passage(self, agent: AgentHandle, text: str) -> Passage:
        """Add to the archival memory. Raises PlatformError(too_large)."""
        ...

    async def replace_passage(self, agent: AgentHandle, passage_id: str, text: str) -> Passage:
        """Replace a passage by another with this text and the same time. Raises PlatformError(not_found |
        too_large)."""
        ...

    async def delete_passage(self, agent: AgentHandle, passage_id: str) -> None:
        """Raises PlatformError(not_found)."""
        ...

    async def context(self, agent: AgentHandle) -> ContextWindow: ...

    def export(self, agent: AgentHandle) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The service's own file of the agent and its conversation: one JSON document, in pieces.

        Entering and iterating raise PlatformError(letta_unavailable)."""
        ...
