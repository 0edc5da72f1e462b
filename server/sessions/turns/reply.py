"""The reply of one attempt as it grows: from an agent's events to the session's, and to the text that is stored.

The live stream and a recovered run go through the same fold, so that both give the same text.
"""

from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field
from typing import Any

from server.ports import (
    AgentEvent,
    ReasoningDelta,
    RunEnded,
    RunStarted,
    TextDelta,
    ToolCalled,
    ToolReturned,
    UsageReported,
)
from server.protocol.shapes import Usage
from server.sessions.events.log import EventLog

_PARAGRAPH = "\n\n"
_BYTES_PER_CHARACTER = 4


def clip(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, cut between characters."""
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def pieces(text: str, limit: int) -> Iterator[str]:
    """The text in parts of at most `limit` bytes of UTF-8."""
    if len(text) * _BYTES_PER_CHARACTER <= limit or len(text.encode()) <= limit:
        yield text
        return
    characters = limit // _BYTES_PER_CHARACTER
    for start in range(0, len(text), characters):
        yield text[start : start + characters]


def storable(text: str) -> str:
    """The text as PostgreSQL and JSON can hold it: models can write NUL characters and halves of surrogate pairs."""
    if "\0" in text:
        text = text.replace("\0", "")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


@dataclass(slots=True)
class _Paragraphs:
    """Joins the assistant messages of a turn, which tool calls may separate, as paragraphs of one text."""

    _message_id: str | None = None
    _begun: bool = False

    def add(self, delta: TextDelta) -> str:
        """The delta's text, with a paragraph break before it where a new message begins."""
        said = storable(delta.text)
        if not said:
            return ""
        new_message = delta.message_id != self._message_id
        self._message_id = delta.message_id
        text = _PARAGRAPH + said if new_message and self._begun else said
        self._begun = True
        return text


@dataclass(slots=True)
class Reply:
    """The text of an attempt as it was published, and what its run reported."""

    log: EventLog
    turn_id: str
    attempt: int
    event_bytes: int
    usage: Usage | None = None
    ended: RunEnded | None = None
    run_id: str | None = None
    said: InitVar[str] = ""
    """The text that an earlier owner of the attempt has published."""
    frozen: bool = False
    blank: bool = True
    """No event of the run has arrived."""
    changed_memory: bool = False
    """A tool of the run has changed what the agent remembers."""
    _parts: list[str] = field(default_factory=list)
    _paragraphs: _Paragraphs = field(default_factory=_Paragraphs)
    _held_back: list[str] = field(default_factory=list)

    def __post_init__(self, said: str) -> None:
        if said:
            self._parts, self.blank = [said], False

    @property
    def text(self) -> str:
        """The text so far, as it was published."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    @property
    def whole_text(self) -> str:
        """The text including what arrived after the reply was frozen."""
        return self.text + "".join(self._held_back)

    def freeze(self) -> None:
        """Publish no more text: the user asked to stop."""
        self.frozen = True

    def feed(self, event: AgentEvent) -> None:
        """Append what an event of the run means to the session's log."""
        if type(event) is TextDelta:  # by far the most frequent: no isinstance chain before it
            self._publish(self._paragraphs.add(event))
        elif isinstance(event, RunStarted):
            self.run_id = event.run_id
        elif isinstance(event, ReasoningDelta):
            for piece in pieces(storable(event.text), self.event_bytes):
                self._append("reasoning.delta", text=piece)
        elif isinstance(event, ToolCalled):
            self._tool_called(event)
        elif isinstance(event, ToolReturned):
            self._tool_returned(event)
        elif isinstance(event, UsageReported):
            self.usage = event.usage
        elif isinstance(event, RunEnded):
            self.ended = event

    def complete_from(self, events: list[AgentEvent]) -> None:
        """Publish the text of a run's recorded events that was not published yet, and adopt its usage and end.

        Tool calls and reasoning that were missed are not replayed.
        """
        paragraphs = _Paragraphs()
        recorded = "".join(paragraphs.add(event) for event in events if isinstance(event, TextDelta))
        for event in events:
            if isinstance(event, UsageReported):
                self.usage = event.usage
            elif isinstance(event, RunEnded):
                self.ended = event
            elif isinstance(event, ToolReturned):
                self.changed_memory |= event.changed_memory
        shown = self.whole_text
        if recorded.startswith(shown):
            self._publish(recorded[len(shown) :])
        elif recorded:  # the terminal event's text is the one that counts
            self._parts, self._held_back = [recorded], []

    def release_text(self) -> None:
        """Publish what was held back: the run had completed before the request to stop reached it."""
        self.frozen = False
        kept, self._held_back = "".join(self._held_back), []
        self._publish(kept)

    def _publish(self, text: str) -> None:
        if not text:
            return
        self.blank = False
        if self.frozen:
            self._held_back.append(text)
            return
        self._parts.append(text)
        for piece in pieces(text, self.event_bytes):
            self.log.append("message.delta", self.turn_id, self.attempt, text=piece)

    def _tool_called(self, call: ToolCalled) -> None:
        name, call_id, arguments = (clip(text, self.event_bytes) for text in (call.name, call.call_id, call.arguments))
        truncated = len(arguments) < len(call.arguments)
        self._append("tool.called", call_id=call_id, name=name, arguments=arguments, truncated=truncated)

    def _tool_returned(self, result: ToolReturned) -> None:
        self.changed_memory |= result.changed_memory
        name, call_id = (clip(text, self.event_bytes) for text in (result.name, result.call_id))
        self._append("tool.returned", call_id=call_id, name=name, status=result.status)

    def _append(self, type_: str, **fields: Any) -> None:
        self.blank = False
        if not self.frozen:
            self.log.append(type_, self.turn_id, self.attempt, **fields)
