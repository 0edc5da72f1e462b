"""The reply of one attempt as it grows: from an agent's events to the session's, and to what is stored.

The live stream and a recovered run go through the same fold, so that both give the same text and steps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, field

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
from server.protocol.shapes import Json, Usage
from server.protocol.text import clip
from server.sessions.events.log import EventLog
from server.sessions.events.steps import longer_of, part_of, steps_of, text_of

_PARAGRAPH = "\n\n"
_BYTES_PER_CHARACTER = 4


def pieces(text: str, limit: int) -> Sequence[str]:
    """The text in parts of at most `limit` bytes of UTF-8."""
    if len(text) * _BYTES_PER_CHARACTER <= limit or len(text.encode()) <= limit:
        return (text,)
    characters = limit // _BYTES_PER_CHARACTER
    return [text[start : start + characters] for start in range(0, len(text), characters)]


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
    """The text and the steps of an attempt as they were published, and what its run reported."""

    log: EventLog
    turn_id: str
    attempt: int
    event_bytes: int
    usage: Usage | None = None
    ended: RunEnded | None = None
    run_id: str | None = None
    said: InitVar[str] = ""
    """What an earlier owner of the attempt has published, as the log keeps it."""
    frozen: bool = False
    blank: bool = True
    """No event of the run has arrived."""
    changed_memory: bool = False
    """A tool of the run has changed what the agent remembers."""
    _parts: list[str] = field(default_factory=list)
    _paragraphs: _Paragraphs = field(default_factory=_Paragraphs)
    _held_back: list[tuple[str, Json]] = field(default_factory=list)
    _recorded: tuple[Json, ...] = ()

    def __post_init__(self, said: str) -> None:
        if said:
            self._parts, self.blank = [said], False

    @property
    def text(self) -> str:
        """The text so far, as it was published."""
        return text_of("".join(self._parts))

    @property
    def steps(self) -> tuple[Json, ...]:
        """The steps so far, as they were published, or as the run has recorded them if that is more."""
        published = steps_of("".join(self._parts))
        return published if self.frozen else longer_of(published, self._recorded)

    @property
    def whole_text(self) -> str:
        """The text including what arrived after the reply was frozen."""
        return self.text + "".join(fields["text"] for type_, fields in self._held_back if type_ == "message.delta")

    def freeze(self) -> None:
        """Publish no more of it: the user asked to stop."""
        self.frozen = True

    def feed(self, event: AgentEvent) -> None:
        """Append what an event of the run means to the session's log."""
        if type(event) is TextDelta:  # by far the most frequent: no isinstance chain before it
            self._publish(self._paragraphs.add(event))
        elif isinstance(event, RunStarted):
            self.run_id = event.run_id
        else:
            self._adopt(event)
            for type_, fields in self._step_events(event):
                self._append(type_, fields)

    def complete_from(self, events: list[AgentEvent]) -> None:
        """Publish the text of a run's recorded events that was not published yet, and adopt its usage and end.

        Steps that were missed are stored, but not published: they would appear after later ones.
        """
        recorded, shown = self._recording(events), self.whole_text
        for event in events:
            self._adopt(event)
        self._recorded = steps_of(recorded)
        text = text_of(recorded)
        if text.startswith(shown):
            self._publish(text[len(shown) :])
        elif text:  # the terminal event's text is the one that counts
            self._parts, self._held_back = [recorded], []

    def release(self) -> None:
        """Publish what was held back: the run had completed before the request to stop reached it."""
        self.frozen = False
        held_back, self._held_back = self._held_back, []
        for type_, fields in held_back:
            self._append(type_, fields)

    def _publish(self, text: str) -> None:
        if text:
            for piece in pieces(text, self.event_bytes):
                self._append("message.delta", {"text": piece})

    def _append(self, type_: str, fields: Json) -> None:
        self.blank = False
        if self.frozen:
            self._held_back.append((type_, fields))
            return
        self._parts.append(part_of(type_, fields) or "")
        self.log.append(type_, self.turn_id, self.attempt, **fields)

    def _adopt(self, event: AgentEvent) -> None:
        """Keep what the run reports beside the reply."""
        if isinstance(event, UsageReported):
            self.usage = event.usage
        elif isinstance(event, RunEnded):
            self.ended = event
        elif isinstance(event, ToolReturned):
            self.changed_memory |= event.changed_memory

    def _step_events(self, event: AgentEvent) -> Iterator[tuple[str, Json]]:
        """The session's events of reasoning and of tools: their types and fields."""
        if isinstance(event, ReasoningDelta):
            for piece in pieces(storable(event.text), self.event_bytes):
                yield "reasoning.delta", {"text": piece}
        elif isinstance(event, ToolCalled):
            call, whole = self._call(event), storable(event.arguments)
            arguments = clip(whole, self.event_bytes)
            yield "tool.called", {**call, "arguments": arguments, "truncated": len(arguments) < len(whole)}
        elif isinstance(event, ToolReturned):
            yield "tool.returned", {**self._call(event), "status": event.status}

    def _call(self, event: ToolCalled | ToolReturned) -> Json:
        call_id, name = (clip(storable(text), self.event_bytes) for text in (event.call_id, event.name))
        return {"call_id": call_id, "name": name}

    def _recording(self, events: list[AgentEvent]) -> str:
        """The reply of a run's recorded events, as the log would keep it."""
        paragraphs = _Paragraphs()
        parts: list[str | None] = []
        for event in events:
            if isinstance(event, TextDelta):
                parts.append(paragraphs.add(event))
            else:
                parts += (part_of(type_, fields) for type_, fields in self._step_events(event))
        return "".join(part for part in parts if part)
