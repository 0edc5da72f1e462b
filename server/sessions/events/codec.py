"""How events are encoded, once for all connections, and decoded where another instance encoded them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from server.sessions.events.snapshot import View
from server.sessions.events.steps import part_of

DELTAS: Final = frozenset({"message.delta", "reasoning.delta"})
TERMINAL: Final = frozenset({"turn.completed", "turn.failed", "turn.cancelled"})
_UTC_Z: Final = orjson.OPT_UTC_Z

AttemptKey = tuple[str | None, int | None]
"""A turn and the number of an attempt at it; both None where an event belongs to no turn."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a connection sends: one event or several joined deltas. `seq` is the last event in it."""

    seq: int
    type: str
    turn_id: str | None
    attempt: int | None
    data: bytes


@dataclass(slots=True)
class Entry:
    """One event of the log. `text` is a delta's. `view` is what is open from this event on, None where that does not
    change. `end`: bytes appended to the log up to and including this event. `part`: what it adds to the reply."""

    frame: Frame
    text: str | None
    at: datetime | str
    view: View | None = None
    end: int = 0
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """An event before it has a number. `view` as in `Entry`."""

    type: str
    of: AttemptKey
    at: datetime
    view: View | None
    fields: dict[str, Any]


def encode(epoch: str, seq: int, event: Event) -> Entry:
    type_, (turn_id, attempt) = event.type, event.of
    body: dict[str, Any] = {"type": type_, "epoch": epoch, "seq": seq, "at": event.at}
    if turn_id is not None:
        body["turn_id"], body["attempt"] = turn_id, attempt
    body.update(event.fields)
    data = orjson.dumps(body, option=_UTC_Z)
    text = event.fields["text"] if type_ in DELTAS else None
    frame = Frame(seq, type_, turn_id, attempt, data)
    return Entry(frame, text, event.at, event.view, part=part_of(type_, event.fields))


def decode(data: bytes) -> Entry:
    """An event as another instance encoded it."""
    body = orjson.loads(data)
    type_: str = body["type"]
    frame = Frame(body["seq"], type_, body.get("turn_id"), body.get("attempt"), data)
    return Entry(frame, body["text"] if type_ in DELTAS else None, body["at"], part=part_of(type_, body))


def joined(epoch: str, entries: list[Entry]) -> list[Frame]:
    """The frames of these entries, adjacent deltas of one type, turn and attempt joined."""
    frames: list[Frame] = []
    start = 0
    while start < len(entries):
        stop = _end_of_run(entries, start)
        frames.append(entries[start].frame if stop - start == 1 else _joined_run(epoch, entries[start:stop]))
        start = stop
    return frames


def _end_of_run(entries: list[Entry], start: int) -> int:
    """The index after the last entry that joins with the one at `start`."""
    first, stop = entries[start], start + 1
    if first.text is None:
        return stop
    frame = first.frame
    while stop < len(entries):
        other = entries[stop].frame
        if (other.type, other.turn_id, other.attempt) != (frame.type, frame.turn_id, frame.attempt):
            break
        stop += 1
    return stop


def _joined_run(epoch: str, run: list[Entry]) -> Frame:
    first, last = run[0].frame, run[-1].frame
    body = {
        "type": last.type,
        "epoch": epoch,
        "first_seq": first.seq,
        "seq": last.seq,
        "at": run[-1].at,
        "turn_id": last.turn_id,
        "attempt": last.attempt,
        "text": "".join(entry.text or "" for entry in run),
    }
    return Frame(last.seq, last.type, last.turn_id, last.attempt, orjson.dumps(body, option=_UTC_Z))


def reply_parts(entries: Sequence[Entry]) -> tuple[AttemptKey | None, str]:
    """Which attempt's reply the newest of these events add to, and what they add (see `steps`). None: no reply."""
    of: AttemptKey | None = None
    parts: list[str] = []
    for entry in entries:
        frame = entry.frame
        if entry.part is not None:
            if (frame.turn_id, frame.attempt) != of:
                of, parts = (frame.turn_id, frame.attempt), []
            parts.append(entry.part)
    return of, "".join(parts)


def encode_attempt(of: AttemptKey) -> str:
    return "" if of[0] is None else f"{of[0]}:{of[1]}"


def decode_attempt(key: str) -> AttemptKey:
    turn_id, _, attempt = key.rpartition(":")
    return (turn_id, int(attempt)) if turn_id else (None, None)
