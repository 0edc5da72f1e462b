"""The event log of one session: a ring of numbered, already encoded events that every connection reads at its own pace.

A connection holds a `Subscription`, a cursor into the shared ring: nothing is queued per connection, so a slow one
costs nothing and delays nobody. One that is behind is given adjacent deltas joined into one frame.
"""

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from server.protocol.cursors import EventCursor
from server.protocol.limits import Limits

DELTAS = frozenset({"message.delta", "reasoning.delta"})
TERMINAL = frozenset({"turn.completed", "turn.failed", "turn.cancelled"})
_UTC_Z = orjson.OPT_UTC_Z


class LogTrimmedError(Exception):
    """The reader fell so far behind that the events it needs next are no longer kept."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a connection sends: one event or several joined deltas. `seq` is the last event in it."""

    seq: int
    type: str
    turn_id: str | None
    attempt: int | None
    data: bytes


@dataclass(slots=True)
class _Entry:
    frame: Frame
    text: str | None
    at: datetime
    end: int  # bytes appended to the log up to and including this entry


class EventLog:
    """Gapless and ordered within its epoch. Appending never waits."""

    __slots__ = ("_bytes_before", "_entries", "_limits", "_now", "_subscriptions", "appended_bytes", "epoch", "head")

    def __init__(self, limits: Limits, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._limits = limits
        self._now = now
        self._entries: deque[_Entry] | None = None  # made at the first event: an idle session stays small
        self._bytes_before = 0
        self._subscriptions: list[Subscription] = []
        self.appended_bytes = 0
        self.epoch = secrets.token_urlsafe(9)
        self.head = 0

    @property
    def cursor(self) -> EventCursor:
        """After the newest event."""
        return EventCursor(self.epoch, self.head)

    def append(self, type_: str, turn_id: str | None = None, attempt: int | None = None, **fields: Any) -> None:
        """Number, encode and keep one event, and wake the connections that wait for it."""
        self.head = seq = self.head + 1
        at = self._now()
        body: dict[str, Any] = {"type": type_, "epoch": self.epoch, "seq": seq, "at": at}
        if turn_id is not None:
            body["turn_id"], body["attempt"] = turn_id, attempt
        body.update(fields)
        data = orjson.dumps(body, option=_UTC_Z)
        self.appended_bytes += len(data)
        entries = self._entries
        if entries is None:
            entries = self._entries = deque()
        text = fields["text"] if type_ in DELTAS else None
        entries.append(_Entry(Frame(seq, type_, turn_id, attempt, data), text, at, self.appended_bytes))
        if len(entries) > self._limits.log_events or self.appended_bytes - self._bytes_before > self._limits.log_bytes:
            self._trim(entries)
        for subscription in self._subscriptions:
            subscription.wake()

    def _trim(self, entries: deque[_Entry]) -> None:
        while len(entries) > 1 and (
            len(entries) > self._limits.log_events or self.appended_bytes - self._bytes_before > self._limits.log_bytes
        ):
            self._bytes_before = entries.popleft().end

    @property
    def oldest(self) -> int:
        """The cursor position before the oldest event that is kept."""
        return self.head - len(self._entries or ())

    def holds(self, cursor: EventCursor) -> bool:
        """Whether every event after `cursor` is still here."""
        return cursor.epoch == self.epoch and self.oldest <= cursor.seq <= self.head

    def subscribe(self, after: EventCursor | None, wake: Callable[[], None]) -> "Subscription":
        """Read from `after` if the log still holds it, else from now on. `wake` tells that there is more to read."""
        seq = after.seq if after is not None and self.holds(after) else self.head
        subscription = Subscription(self, seq, wake, self._limits.slow_consumer_bytes)
        self._subscriptions.append(subscription)
        return subscription

    def _unsubscribe(self, subscription: "Subscription") -> None:
        # A new list: this may happen while `append` goes through the old one.
        self._subscriptions = [other for other in self._subscriptions if other is not subscription]

    def _after(self, seq: int) -> list[_Entry]:
        entries = self._entries
        waiting = self.head - seq
        if entries is None or waiting <= 0:
            return []
        if waiting > len(entries):
            raise LogTrimmedError
        if waiting == 1:
            return [entries[-1]]
        return [entries[index] for index in range(len(entries) - waiting, len(entries))]

    def _end_of(self, seq: int) -> int:
        """Bytes appended up to and including event `seq`."""
        entries = self._entries
        if entries is None or seq >= self.head:
            return self.appended_bytes
        index = len(entries) - (self.head - seq)
        return entries[index].end if index >= 0 else self._bytes_before


class Subscription:
    """One connection's place in the log."""

    __slots__ = ("_caught_up", "_log", "_read_bytes", "_slow_bytes", "_wake", "seq")

    def __init__(self, log: EventLog, seq: int, wake: Callable[[], None], slow_bytes: int) -> None:
        self._log = log
        self._wake = wake
        self._slow_bytes = slow_bytes
        self._caught_up = False
        self._read_bytes = log._end_of(seq)
        self.seq = seq

    @property
    def cursor(self) -> EventCursor:
        return EventCursor(self._log.epoch, self.seq)

    @property
    def has_more(self) -> bool:
        return self._log.head > self.seq

    @property
    def is_slow(self) -> bool:
        """Caught up once, and now further behind than the limit."""
        return self._caught_up and self._log.appended_bytes - self._read_bytes > self._slow_bytes

    def wake(self) -> None:
        self._wake()

    def take(self) -> list[Frame]:
        """Everything that waits, adjacent deltas of one type, turn and attempt joined. Raises LogTrimmedError."""
        entries = self._log._after(self.seq)
        if entries:
            self.seq = entries[-1].frame.seq
            self._read_bytes = entries[-1].end
        self._caught_up = True
        if len(entries) == 1:
            return [entries[0].frame]
        frames: list[Frame] = []
        start = 0
        while start < len(entries):
            stop = _end_of_run(entries, start)
            frames.append(entries[start].frame if stop - start == 1 else self._join(entries[start:stop]))
            start = stop
        return frames

    def close(self) -> None:
        """Stop reading. Calling it again does nothing."""
        self._log._unsubscribe(self)

    def _join(self, run: list[_Entry]) -> Frame:
        first, last = run[0].frame, run[-1].frame
        body = {
            "type": last.type,
            "epoch": self._log.epoch,
            "first_seq": first.seq,
            "seq": last.seq,
            "at": run[-1].at,
            "turn_id": last.turn_id,
            "attempt": last.attempt,
            "text": "".join(entry.text or "" for entry in run),
        }
        return Frame(last.seq, last.type, last.turn_id, last.attempt, orjson.dumps(body, option=_UTC_Z))


def _end_of_run(entries: list[_Entry], start: int) -> int:
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
