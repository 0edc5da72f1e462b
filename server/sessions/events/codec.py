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


@dataclass(slots=True)
class Entry:
    """One event as connections are sent it, or several deltas joined, of which `seq` is the last. `of` is the attempt.

    `text` is a delta's; `part` is what the event adds to the reply. `view` is what is open from this event on, None
    where that does not change. `end`: bytes appended to the log up to and including this event.
    """

    seq: int
    type: str
    of: AttemptKey
    at: datetime | str
    data: bytes
    text: str | None
    part: str | None
    view: View | None = None
    end: int = 0


@dataclass(slots=True)
class Event:
    """An event before it has a number. `view` as in `Entry`."""

    type: str
    of: AttemptKey
    at: datetime
    view: View | None
    fields: dict[str, Any]


def encode(epoch: str, seq: int, event: Event) -> Entry:
    type_, of, at, fields = event.type, event.of, event.at, event.fields
    body: dict[str, Any] = {"type": type_, "epoch": epoch, "seq": seq, "at": at}
    if of[0] is not None:
        body["turn_id"], body["attempt"] = of
    body.update(fields)
    text = fields["text"] if type_ in DELTAS else None
    # A copy: what orjson returns occupies 4 KiB for as long as it lives, however short it is.
    data = b"".join((orjson.dumps(body, option=_UTC_Z), b""))
    return Entry(seq, type_, of, at, data, text, part_of(type_, fields), event.view)


def decode(data: bytes) -> Entry:
    """An event as another instance encoded it."""
    body = orjson.loads(data)
    type_: str = body["type"]
    of = body.get("turn_id"), body.get("attempt")
    text = body["text"] if type_ in DELTAS else None
    return Entry(body["seq"], type_, of, body["at"], data, text, part_of(type_, body))


def joined(epoch: str, entries: list[Entry]) -> list[Entry]:
    """The entries with adjacent deltas of one type and attempt joined."""
    result: list[Entry] = []
    start = 0
    while start < len(entries):
        stop = _end_of_run(entries, start)
        result.append(entries[start] if stop - start == 1 else _joined_run(epoch, entries[start:stop]))
        start = stop
    return result


def _end_of_run(entries: list[Entry], start: int) -> int:
    """The index after the last entry that joins with the one at `start`."""
    first, stop = entries[start], start + 1
    if first.text is None:
        return stop
    while stop < len(entries) and (entries[stop].type, entries[stop].of) == (first.type, first.of):
        stop += 1
    return stop


def _joined_run(epoch: str, run: list[Entry]) -> Entry:
    last = run[-1]
    text = "".join(entry.text or "" for entry in run)
    body = {
        "type": last.type,
        "epoch": epoch,
        "first_seq": run[0].seq,
        "seq": last.seq,
        "at": last.at,
        "turn_id": last.of[0],
        "attempt": last.of[1],
        "text": text,
    }
    data = orjson.dumps(body, option=_UTC_Z)
    return Entry(last.seq, last.type, last.of, last.at, data, text, None)


def reply_parts(entries: Sequence[Entry]) -> tuple[AttemptKey | None, str]:
    """Which attempt's reply the newest of these events add to, and what they add (see `steps`). None: no reply."""
    of: AttemptKey | None = None
    parts: list[str] = []
    for entry in entries:
        if entry.part is not None:
            if entry.of != of:
                of, parts = entry.of, []
            parts.append(entry.part)
    return of, "".join(parts)


def encode_attempt(of: AttemptKey) -> str:
    return "" if of[0] is None else f"{of[0]}:{of[1]}"


def decode_attempt(key: str) -> AttemptKey:
    turn_id, _, attempt = key.rpartition(":")
    return (turn_id, int(attempt)) if turn_id else (None, None)
