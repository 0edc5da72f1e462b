"""Converts Letta's records of a run and its messages to the events of the run's stream. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

from server.adapters.letta.stream import CALLING, Chunk, awaits_approval, end_of, failed, returned, text_of, usage_of
from server.ports import AgentEvent, ReasoningDelta, Run, RunEnded, TextDelta, ToolCalled
from server.protocol.shapes import TurnStatus, Usage

_ENDED: Final[dict[TurnStatus, Literal["completed", "failed", "cancelled"]]] = {
    TurnStatus.COMPLETED: "completed",
    TurnStatus.FAILED: "failed",
    TurnStatus.CANCELLED: "cancelled",
}
_SAME_IN_OTID: Final = 34
"""An `otid` that Letta derives from a message's id (a UUID) begins with this many characters of it; the rest is the
number of the part."""


def run_of(record: Chunk) -> Run:
    """The record as the port's `Run`."""
    end = end_of_record(record)
    status: Literal["running", "completed", "failed", "cancelled"] = "running"
    if end is not None:
        status = _ENDED[end.status]
    return Run(record["id"], status)


def end_of_record(record: Chunk) -> RunEnded | None:
    """The end of a recorded run; None while it is active."""
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


def awaited_approval(record: Chunk) -> bool:
    """Whether a run ended, or was refused, because a tool awaited an approval."""
    reported = (record.get("metadata") or {}).get("error")
    detail = reported.get("detail") if isinstance(reported, dict) else reported
    return awaits_approval(record.get("stop_reason"), str(detail or ""))


def events_of(messages: Sequence[Chunk]) -> list[AgentEvent]:
    """The events of the run's own messages. `messages` are all of its messages, beginning with those sent to it."""
    own = messages[_number_sent(messages) :]
    names = _tool_names(own)
    return [event for message in own for event in _recorded(message, names)]


def _number_sent(messages: Sequence[Chunk]) -> int:
    """How many messages were sent to the run: all up to our last user message, including an earlier reply that was sent
    again. User messages that Letta writes itself (a summary, for example) have an `otid` derived from their id."""
    return max((number for number, message in enumerate(messages, 1) if _is_sent(message)), default=0)


def _is_sent(message: Chunk) -> bool:
    made_by_letta = str(message["id"]).removeprefix("message-")[:_SAME_IN_OTID]
    return message["message_type"] == "user_message" and (message.get("otid") or "")[:_SAME_IN_OTID] != made_by_letta


def _calls(message: Chunk) -> Sequence[Chunk]:
    """The tool calls of a stored message."""
    if message["message_type"] not in CALLING:
        return []
    return message.get("tool_calls") or [message["tool_call"]]


def _tool_names(messages: Sequence[Chunk]) -> Mapping[str, str]:
    """The names of the tools that were called, by the ids of their calls."""
    return {call["tool_call_id"]: call["name"] for message in messages for call in _calls(message)}


def _recorded(message: Chunk, names: Mapping[str, str]) -> Sequence[AgentEvent]:
    """The events of a stored message, as in the stream."""
    match message["message_type"]:
        case "assistant_message" if text := text_of(message.get("content")):
            return [TextDelta(message["id"], text)]
        case "reasoning_message" if reasoning := message.get("reasoning"):
            return [ReasoningDelta(reasoning)]
        case kind if kind in CALLING:
            return [ToolCalled(call["tool_call_id"], call["name"], call["arguments"]) for call in _calls(message)]
        case "tool_return_message":
            return returned(message, names)
    return []


def usage_of_steps(steps: Sequence[Chunk]) -> Usage | None:
    """The tokens of a run: the sum of its steps. `/usage` has neither cached tokens nor the number of calls."""
    used = [replace(usage_of(step), model_calls=1) for step in steps if step.get("total_tokens")]
    return sum(used, Usage()) if used else None
