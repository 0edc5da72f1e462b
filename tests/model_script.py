"""The scripted model's directives: finding the last one in a text, and the steps of the reply it asks for. Pure."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.stack.demo_model.model import words
from server.stack.demo_model.wire import ApiError, ChatRequest, Piece, Reasoning, Text, ToolCall

_DIRECTIVE = re.compile(
    r"\b(?:"
    r"(?P<SLOW>SLOW) (?P<count>\d+) (?P<delay>\d+(?:\.\d+)?)"
    r"|(?P<ECHO>ECHO) (?P<text>[^\n]*)"
    r"|(?P<CALLS>CALLS) (?=\[)"
    r"|(?P<CALL>CALL)(?: AT (?P<held>[\w-]+)| THEN (?P<then>[\w-]+)|(?P<quietly> QUIETLY)|(?P<endlessly> ENDLESSLY))?"
    r" (?P<tool>\w+) (?=\{)"
    r"|(?P<GATE>GATE) (?P<gate>[\w-]+)(?: (?P<before>\d+)(?: (?P<after>\d+))?)?"
    r"|(?P<STALL>STALL) (?P<heard>\d+)"
    r"|(?P<ERR>ERR) (?P<status>[45]\d\d)(?: (?P<times>\d+))?"
    r"|(?P<REASON>REASON)\b|(?P<MUSE>MUSE)\b|(?P<POLICY>POLICY)\b|(?P<HANG>HANG)\b|(?P<DROP>DROP)\b"
    r")"
)


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AtGate:
    """Wait until this gate is open."""

    name: str


@dataclass(frozen=True, slots=True)
class Silence:
    """Write nothing more while the client is connected."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut the connection."""


Step = Piece | Pause | AtGate | Silence | Cut


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive found in a text; `values` holds its parts by the names of the pattern, absent ones left out."""

    name: str
    source: str
    values: dict[str, str]
    arguments: Any

    def number(self, part: str, default: int = 0) -> int:
        """A part that is a count."""
        return int(self.values.get(part, default))


def last_directive(text: str) -> Directive | None:
    """The last directive in the text, or None; text inside the arguments of calls is not a directive."""
    last: Directive | None = None
    position = 0
    while found := _DIRECTIVE.search(text, position):
        position = found.end()
        arguments: Any = {}
        if found["CALL"] or found["CALLS"]:
            arguments, position = json.JSONDecoder().raw_decode(text, position)
        values = {part: value for part, value in found.groupdict().items() if value is not None}
        name = next(name for name in _SCRIPTS if name in values)
        last = Directive(name, text[found.start() : position], values, arguments)
    return last


def steps(directive: Directive, request: ChatRequest, asked_before: int) -> list[Step]:
    """The steps of the reply, in order. `asked_before` counts earlier requests with the same text.

    Raises ApiError if the directive asks for a refusal."""
    return _SCRIPTS[directive.name](directive, request, asked_before)


def _numbered(start: int, stop: int) -> list[Step]:
    return [Text(f" w{index}" if index else "w0") for index in range(start, stop)]


def _spoken(text: str) -> list[Step]:
    return [Text(word) for word in words(text)]


def _slow(directive: Directive, _request: ChatRequest, _asked_before: int) -> list[Step]:
    pause = Pause(float(directive.values["delay"]))
    return [step for word in _numbered(0, directive.number("count")) for step in (pause, word)]


def _echo(directive: Directive, _request: ChatRequest, _asked_before: int) -> list[Step]:
    return _spoken(directive.values["text"])


def _call(directive: Directive, request: ChatRequest, _asked_before: int) -> list[Step]:
    if request.tool_results and "endlessly" not in directive.values:
        gate: list[Step] = [AtGate(directive.values["then"])] if "then" in directive.values else []
        return [] if "quietly" in directive.values else [*gate, *_spoken(f"done: {request.tool_results[-1]}")]
    held: list[Step] = [AtGate(directive.values["held"])] if "held" in directive.values else []
    return [*held, ToolCall(directive.values["tool"], directive.arguments)]


def _calls(directive: Directive, request: ChatRequest, _asked_before: int) -> list[Step]:
    if request.tool_results:
        return _spoken(f"done: {len(request.tool_results)} results")
    return [ToolCall(tool, arguments) for tool, arguments in directive.arguments]


def _gate(directive: Directive, _request: ChatRequest, _asked_before: int) -> list[Step]:
    before, after = directive.number("before"), directive.number("after", 3)
    return [*_numbered(0, before), AtGate(directive.values["gate"]), *_numbered(before, before + after)]


def _stall(directive: Directive, _request: ChatRequest, _asked_before: int) -> list[Step]:
    return [*_numbered(0, directive.number("heard")), Silence()]


def _err(directive: Directive, _request: ChatRequest, asked_before: int) -> list[Step]:
    if "times" in directive.values and asked_before >= directive.number("times"):
        return _spoken("recovered")
    status = directive.number("status")
    raise ApiError(status, f"scripted error {status}", "server_error" if status >= 500 else "invalid_request_error")


def _reason(_directive: Directive, _request: ChatRequest, _asked_before: int) -> list[Step]:
    return [*(Reasoning(word) for word in words("thinking hard about it")), *_spoken("the answer")]


def _muse(_directive: Directive, _request: ChatRequest, _asked_before: int) -> list[Step]:
    return [Reasoning(word) for word in words("thinking hard about it")]


def _policy(_directive: Directive, _request: ChatRequest, _asked_before: int) -> list[Step]:
    sentence = "Your request was rejected as a result of our safety system."
    raise ApiError(400, sentence, code="content_policy_violation")


def _hang(_directive: Directive, _request: ChatRequest, _asked_before: int) -> list[Step]:
    return [Silence()]


def _drop(_directive: Directive, _request: ChatRequest, _asked_before: int) -> list[Step]:
    # The pause lets a proxy in between forward the words; it would report a cut that comes with them as no answer.
    return [*_numbered(0, 3), Pause(0.2), Cut()]


_SCRIPTS: dict[str, Callable[[Directive, ChatRequest, int], list[Step]]] = {
    "SLOW": _slow,
    "ECHO": _echo,
    "CALL": _call,
    "CALLS": _calls,
    "GATE": _gate,
    "STALL": _stall,
    "ERR": _err,
    "REASON": _reason,
    "MUSE": _muse,
    "POLICY": _policy,
    "HANG": _hang,
    "DROP": _drop,
}
