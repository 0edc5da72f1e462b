"""The event stream of one Letta run, sans I/O: bytes in, AgentEvents out. The hot path of the platform.

Letta frames each chunk as one `data: {json}` line. No chunk becomes a model object: a line is parsed by orjson and
matched on its `message_type`, a few microseconds in all.
"""

from collections.abc import Container, Mapping
from typing import Any, Final, Literal

import orjson

from server.adapters.letta.errors import model_error, refuses_request, stop_error
from server.adapters.letta.template import EDITING_TOOLS, MEMORY_TOOLS
from server.ports import (
    AgentEvent,
    ReasoningDelta,
    RunEnded,
    RunStarted,
    StreamBrokenError,
    TextDelta,
    ToolCalled,
    ToolReturned,
    UsageReported,
)
from server.protocol.shapes import TurnStatus, Usage

Chunk = Mapping[str, Any]

MAX_STEPS: Final = 50
"""The default limit of model calls in one run at Letta."""
CALLING: Final = frozenset({"tool_call_message", "approval_request_message"})
"""The messages with tool calls. An `approval_request_message` ends its run."""
_WAITING: Final = "waiting for approval on a tool call"
"""The text with which Letta refuses a message to a conversation with such a call: a CONFLICT in the stream of a run."""
_COMPLETE: Final = frozenset({"end_turn", "max_steps", "tool_rule"})
"""The stop reasons of runs that Letta considers completed."""


def failed(error_type: str | None, detail: str | None) -> RunEnded:
    """The end of a run that reported an error."""
    return RunEnded(TurnStatus.FAILED, model_error(error_type, detail), refused=refuses_request(detail))


def end_of(stop_reason: str | None, failure: RunEnded | None) -> RunEnded:
    """The end of a run, from its stop reason and the reported failure. Its `status` at Letta is not enough: a run whose
    model failed during a reply is `completed` there, with the stop reason `llm_api_error`."""
    if stop_reason == "cancelled":
        return RunEnded(TurnStatus.CANCELLED)
    if failure is not None:
        return failure
    if stop_reason in _COMPLETE:
        return RunEnded(TurnStatus.COMPLETED, step_limit=MAX_STEPS if stop_reason == "max_steps" else None)
    return RunEnded(TurnStatus.FAILED, stop_error(stop_reason))


def awaits_approval(stop_reason: str | None, detail: str) -> bool:
    """Whether a run ended, or was refused, because a tool awaits an approval."""
    return stop_reason == "requires_approval" or _WAITING in detail


def text_of(content: object) -> str:
    """The text of a message's content: a string, or a list of parts, whose text parts are joined."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return ""


def returned(message: Chunk, names: Mapping[str, str]) -> list[ToolReturned]:
    """All tool returns of a message, live or recorded. `names` are the tools' names by the ids of their calls, since
    the message has only the first name."""
    returns = message.get("tool_returns") or [message]
    return [_returned(one, names, message.get("name") if number == 0 else None) for number, one in enumerate(returns)]


def _returned(one: Chunk, names: Mapping[str, str], own_name: str | None) -> ToolReturned:
    call_id = one.get("tool_call_id") or ""
    name = names.get(call_id) or own_name or ""
    status: Literal["success", "error"] = "success" if one.get("status") == "success" else "error"
    return ToolReturned(call_id, name, status, changed_memory=status == "success" and name in MEMORY_TOOLS)


def edits_memory(result: ToolReturned) -> bool:
    """Whether this tool has just changed a memory block."""
    return result.status == "success" and result.name in EDITING_TOOLS


def usage_of(statistics: Chunk) -> Usage:
    """The tokens of a run or of a step; Letta writes null for numbers that a model did not report."""
    return Usage(
        prompt_tokens=statistics.get("prompt_tokens") or 0,
        completion_tokens=statistics.get("completion_tokens") or 0,
        total_tokens=statistics.get("total_tokens") or 0,
        cached_tokens=statistics.get("cached_input_tokens") or 0,
        reasoning_tokens=statistics.get("reasoning_tokens") or 0,
        model_calls=statistics.get("step_count") or 0,
    )


def _add_text(events: list[AgentEvent], message_id: str, text: str) -> None:
    last = events[-1] if events else None
    if type(last) is TextDelta and last.message_id == message_id:
        last.text += text
    else:
        events.append(TextDelta(message_id, text))


class _PendingCall:
    """A tool call whose name has arrived, and whose arguments are arriving in pieces."""

    __slots__ = ("_parts", "id", "name")

    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self._parts: list[str] = []

    def add(self, arguments: str) -> bool:
        """Append a piece of the arguments. Returns True if they are complete: a JSON object that parses."""
        self._parts.append(arguments)
        if not arguments.endswith("}"):
            return False
        try:
            orjson.loads("".join(self._parts))
        except orjson.JSONDecodeError:
            return False
        return True

    def event(self) -> ToolCalled:
        return ToolCalled(self.id, self.name, "".join(self._parts) or "{}")


class StreamParser:
    """`feed` it the bytes of the HTTP body in pieces of any size, and call `end` after the last one.

    Only `end` returns `RunEnded`, since text can follow the stop reason after a cancel. `edited_memory`: the run has
    changed a memory block so far. `is_refused`: the run was refused because a call of an earlier run awaits an
    approval. `before` is the parser of the run that this one continues: for the core both are one run, with the id of
    the first. `denied` are the ids of calls whose denial was reported already.
    """

    __slots__ = (
        "_before",
        "_calls",
        "_denied",
        "_failure",
        "_names",
        "_rest",
        "_run_id",
        "_stop_reason",
        "_used",
        "edited_memory",
        "is_refused",
    )

    def __init__(self, before: "StreamParser | None" = None, denied: Container[str] = ()) -> None:
        self.edited_memory = False
        self.is_refused = False
        self._rest = b""
        self._run_id: str | None = before._run_id if before else None
        self._before: Usage = before._used if before else Usage()
        self._used: Usage = self._before
        self._calls: dict[str, _PendingCall] = {}
        self._denied = denied
        self._names: dict[str, str] = before._names if before else {}
        self._stop_reason: str | None = None
        self._failure: RunEnded | None = None

    @property
    def awaits_approval(self) -> bool:
        """Whether a tool awaits an approval."""
        return self.is_refused or awaits_approval(self._stop_reason, "")

    def feed(self, data: bytes) -> list[AgentEvent]:
        """The events that `data` completes, in order, adjacent texts joined: what one read of a busy server brings is
        one event to number, encode and send. Raises StreamBrokenError for a line that cannot be parsed."""
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        events: list[AgentEvent] = []
        for line in lines:
            if line.startswith(b"data: {"):
                try:
                    self._parse(orjson.loads(line[6:]), events)
                except (ValueError, TypeError, LookupError, AttributeError) as cause:
                    raise StreamBrokenError("a line of the stream is not an event of Letta's") from cause
            elif line.startswith(b"event: cancelled"):
                self._stop_reason = "cancelled"
        return events

    def end(self) -> list[AgentEvent]:
        """The last events, at the end of the body. Raises StreamBrokenError if the run has not reported its end."""
        events = self.feed(b"\n")
        self._flush_calls(events)
        if self._stop_reason is None and self._failure is None:
            raise StreamBrokenError("the stream ended before its run did")
        events.append(end_of(self._stop_reason, self._failure))
        return events

    def _parse(self, chunk: Chunk, events: list[AgentEvent]) -> None:
        if self._run_id is None and (run_id := chunk.get("run_id")):
            self._run_id = run_id
            events.append(RunStarted(run_id))
        kind = chunk.get("message_type")
        if kind == "assistant_message":
            if self._calls:
                self._flush_calls(events)
            content = chunk.get("content")
            text = content if type(content) is str else text_of(content)
            if text:
                _add_text(events, chunk["id"], text)
        elif kind != "ping":
            self._parse_other(kind, chunk, events)

    def _parse_other(self, kind: str | None, chunk: Chunk, events: list[AgentEvent]) -> None:
        if kind in CALLING:
            self._tool_call(chunk.get("tool_call") or {}, events)
            return
        self._flush_calls(events)
        match kind:
            case "reasoning_message":
                if text := chunk.get("reasoning"):
                    events.append(ReasoningDelta(text))
            case "tool_return_message":
                results = [one for one in returned(chunk, self._names) if one.call_id not in self._denied]
                self.edited_memory = self.edited_memory or any(map(edits_memory, results))
                events += results
            case "usage_statistics":
                self._used = self._before + usage_of(chunk)
                events.append(UsageReported(self._used))
            case "stop_reason" if self._stop_reason != "cancelled":
                self._stop_reason = chunk.get("stop_reason")
            case "error_message":
                self._failure = failed(chunk.get("error_type"), detail := chunk.get("detail"))
                self.is_refused = awaits_approval(None, detail or "")
            case None if "error" in chunk:  # an exception inside Letta after the stream had begun
                self._failure = self._failure or failed(None, str(chunk["error"]))

    def _tool_call(self, call: Chunk, events: list[AgentEvent]) -> None:
        """Add a piece of a call. The pieces of several calls may be interleaved."""
        last = next(reversed(self._calls), "")
        call_id: str = call.get("tool_call_id") or last
        pending = self._calls.get(call_id)
        if pending is None:
            if not call.get("name"):
                return  # the rest of a call that was emitted already
            pending = self._calls[call_id] = _PendingCall(call_id, call["name"])
            self._names[call_id] = pending.name
        if (arguments := call.get("arguments")) and pending.add(arguments):
            self._emit(pending, events)

    def _flush_calls(self, events: list[AgentEvent]) -> None:
        for pending in tuple(self._calls.values()):
            self._emit(pending, events)

    def _emit(self, pending: _PendingCall, events: list[AgentEvent]) -> None:
        del self._calls[pending.id]
        events.append(pending.event())
