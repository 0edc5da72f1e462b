"""Events on their way between instances: without a number, as sent, and as read by another instance."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from server.ports import Batch
from server.sessions.log import DELTAS, AttemptKey, Entry, Frame
from server.sessions.views import View


@dataclass(frozen=True, slots=True)
class Event:
    """An event that has no number yet."""

    type: str
    turn_id: str | None
    attempt: int | None
    at: datetime
    fields: dict[str, Any]
    view: View | None


@dataclass(frozen=True, slots=True)
class Correction:
    """See `EventLog.correct`, in its place among the events."""

    reply_of: tuple[str, int]
    text: str


@dataclass(frozen=True, slots=True)
class Sending:
    """Events on their way to the relay."""

    batch: Batch
    entries: tuple[Entry, ...]
    events: tuple[Event, ...]


def events_before_a_correction(waiting: Iterable[Event | Correction]) -> Iterator[Event]:
    for one in waiting:
        if not isinstance(one, Event):
            return
        yield one


def decoded(data: bytes) -> Entry:
    """An event as another instance encoded it."""
    body = orjson.loads(data)
    type_: str = body["type"]
    frame = Frame(body["seq"], type_, body.get("turn_id"), body.get("attempt"), data)
    return Entry(frame, body["text"] if type_ in DELTAS else None, body["at"])


def key_of(reply_of: AttemptKey) -> str:
    return "" if reply_of[0] is None else f"{reply_of[0]}:{reply_of[1]}"


def attempt_of(key: str) -> AttemptKey:
    turn_id, _, attempt = key.rpartition(":")
    return (turn_id, int(attempt)) if turn_id else (None, None)
