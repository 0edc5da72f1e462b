"""A reply as it grows, in one string that can be appended to: its text, and between that its steps, which are its
reasoning and tool calls. Both the log and its replica keep it so.

A step is its event without what only the log needs: a client applies both with the same code.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from server.protocol.limits import Limits
from server.protocol.shapes import Json
from server.protocol.text import clip

_MARK: Final = "\0"
"""Before and after each step. No text has it: PostgreSQL could not store it."""
_REASONING: Final = "r"
"""Before the text of a step that is reasoning; others are JSON."""
_FIELDS: Final = {
    "tool.called": ("call_id", "name", "arguments", "truncated"),
    "tool.returned": ("call_id", "name", "status"),
}
_STEP_BYTES: Final = 128
"""What a step counts beside its texts: the names of its fields, and the return of a call."""


def part_of(type_: str, fields: Mapping[str, Any]) -> str | None:
    """What an event adds to the reply. None: nothing."""
    if type_ == "message.delta":
        text: str = fields["text"]
        return text
    if type_ == "reasoning.delta":
        return f"{_MARK}{_REASONING}{fields['text']}{_MARK}"
    if type_ not in _FIELDS:
        return None
    step = {"type": type_} | {name: fields[name] for name in _FIELDS[type_]}
    return f"{_MARK}{orjson.dumps(step).decode()}{_MARK}"


def text_of(reply: str) -> str:
    """The text of a reply."""
    return "".join(reply.split(_MARK)[::2])


def steps_of(reply: str, limit: int = Limits.steps_bytes) -> tuple[Json, ...]:
    """The steps of a reply, at most about `limit` bytes: the step at which that is reached is cut and `truncated`, and
    later ones are left out, except the returns of calls that are kept."""
    kept: list[Json] = []
    calls: set[str] = set()
    for step in _joined(reply.split(_MARK)):
        if step["type"] == "tool.returned":
            if step["call_id"] in calls:
                kept.append(step)
        elif limit >= 0:
            size = _STEP_BYTES + sum(len(value.encode()) for value in step.values() if isinstance(value, str))
            kept.append(step if size <= limit else _cut(step, size - limit))
            calls.add(step.get("call_id", ""))
            limit -= size
    return tuple(kept)


def longer_of(some: tuple[Json, ...], others: tuple[Json, ...]) -> tuple[Json, ...]:
    """Of two accounts of the same steps the one that says more."""
    return max(some, others, key=lambda steps: len(orjson.dumps(steps)))


def _joined(parts: Iterable[str]) -> Iterator[Json]:
    """The steps among the parts, which alternate with texts. Reasoning is joined up to the next text or tool."""
    thoughts: list[str] = []
    for index, part in enumerate(parts):
        is_step = index % 2 == 1
        if is_step and part.startswith(_REASONING):
            thoughts.append(part.removeprefix(_REASONING))
            continue
        if part and thoughts:
            yield {"type": "reasoning.delta", "text": "".join(thoughts)}
            thoughts = []
        if is_step:
            yield orjson.loads(part)
    if thoughts:
        yield {"type": "reasoning.delta", "text": "".join(thoughts)}


def _cut(step: Json, excess: int) -> Json:
    """The step without so many bytes of its longest text, or as many as that has."""
    name = "text" if "text" in step else "arguments"
    return {**step, name: clip(step[name], max(len(step[name].encode()) - excess, 0)), "truncated": True}
