"""The event log of one session: a ring of numbered, already encoded events that every connection reads at its own pace.

A connection holds a `Subscription`, a cursor into the shared ring: nothing is queued per connection, so a slow one
costs nothing and delays nobody. One that is behind is given adjacent deltas joined into one frame.

`EventLog` is the log of a single instance: what is appended is delivered at once. `RelayedLog` is the same log where
several instances share it.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from server.ports import Lease, News
from server.protocol.cursors import EventCursor
from server.protocol.limits import Limits
from server.sessions.views import NOTHING_OPEN, View

DELTAS = frozenset({"message.delta", "reasoning.delta"})
TERMINAL = frozenset({"turn.completed", "turn.failed", "turn.cancelled"})
_UTC_Z = orjson.OPT_UTC_Z


AttemptKey = tuple[str | None, int | None]
"""A turn and the number of an attempt at it, of an event that belongs to one."""


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
class Entry:
    """One event in the ring. `end`: bytes appended to the log up to and including it."""

    frame: Frame
    text: str | None
    at: datetime | str
    end: int = 0


def new_epoch() -> str:
    return secrets.token_urlsafe(9)


class EventLog:
    """Gapless and ordered within its epoch. Appending never waits.

    Beside the events it keeps what a connection is shown that joins now: the `view` of what is open, and the whole text
    of the running reply, however much of it was trimmed.
    """

    __slots__ = (
        "_bytes_before",
        "_endings",
        "_entries",
        "_limits",
        "_now",
        "_reply",
        "_reply_of",
        "_subscriptions",
        "appended_bytes",
        "beginnings",
        "epoch",
        "head",
        "on_fenced",
        "view",
    )

    is_shared = False
    """Whether other instances read this log, so that its owner alone may write to it."""
    is_fresh = True
    """Whether nothing is known of what was open before this log was opened."""
    is_detached = False
    """Whether this instance goes on alone, in memory, with a log that others should read too."""

    def __init__(self, limits: Limits, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._limits = limits
        self._now = now
        self._entries: deque[Entry] | None = None  # made at the first event: an idle session stays small
        self._bytes_before = 0
        self._subscriptions: list[Subscription] = []
        self._endings: dict[str, asyncio.Future[None]] = {}
        self._reply_of: AttemptKey = (None, None)
        self._reply: list[str] = []
        self.appended_bytes = 0
        self.beginnings = 0  # how often connections had to begin anew
        self.epoch = new_epoch()
        self.head = 0
        self.view: View = NOTHING_OPEN
        self.on_fenced: Callable[[], None] | None = None  # told when another instance writes now

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def cursor(self) -> EventCursor:
        """After the newest event."""
        return EventCursor(self.epoch, self.head)

    def reply(self, turn_id: str, attempt: int) -> str:
        """What the reply of this attempt has said, if it is the newest that said anything."""
        if self._reply_of != (turn_id, attempt):
            return ""
        if len(self._reply) > 1:
            self._reply = ["".join(self._reply)]
        return self._reply[0] if self._reply else ""

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

    def has_told(self, news: News) -> bool:
        """Whether the newest event of this kind, about this turn, says the same."""
        for entry in reversed(self._entries or ()):
            frame = entry.frame
            if (frame.type, frame.turn_id, frame.attempt) == (news.type, news.turn_id, news.attempt):
                told = orjson.loads(frame.data)
                return all(told.get(name) == value for name, value in news.fields.items())
        return False

    def ending(self, turn_id: str) -> "asyncio.Future[None]":
        """Done when the turn's row should be looked at: it has ended, or may have. Shared by all who ask: shield it."""
        return self._endings.setdefault(turn_id, asyncio.get_running_loop().create_future())

    def settle_ending(self, turn_id: str) -> None:
        """The turn is known to have ended."""
        ending = self._endings.pop(turn_id, None)
        if ending is not None and not ending.done():
            ending.set_result(None)

    def _look_at_endings(self) -> None:
        for turn_id in tuple(self._endings):
            self.settle_ending(turn_id)

    # -- writing -------------------------------------------------------------------------------------------------

    def append(
        self,
        type_: str,
        turn_id: str | None = None,
        attempt: int | None = None,
        *,
        view: View | None = None,
        **fields: Any,
    ) -> None:
        """Number, encode and keep one event, and wake the connections. `view` is what is open from this event on."""
        self._keep(self._encoded(self.head + 1, type_, (turn_id, attempt), self._now(), fields))
        if view is not None:
            self.view = view
        self._wake()

    def show(self, view: View) -> None:
        """What is open now, learned without an event."""
        self.view = view

    def correct(self, turn_id: str, attempt: int, text: str) -> None:
        """What was shown of this reply was wrong: begin anew with the right text, which every connection is shown."""
        self._restart(new_epoch(), 0, self.view, (turn_id, attempt), text)

    # -- where other instances read it too: see RelayedLog ---------------------------------------------------------

    async def open(self) -> None:
        """Learn what was written before."""

    async def take(self, lease: Lease) -> None:
        """Become the one that writes. Raises FencedError."""

    async def give_back(self) -> None:
        """Write no more. Returns when what was appended is delivered, or cannot be."""

    async def fetch(self, after: EventCursor) -> None:
        """Try to hold the events after `after`."""

    def close(self) -> None:
        """This instance reads it no more: whoever waits for an end looks at the rows."""
        self._look_at_endings()

    # -- the ring ------------------------------------------------------------------------------------------------

    def _encoded(self, seq: int, type_: str, of: AttemptKey, at: datetime, fields: dict[str, Any]) -> Entry:
        turn_id, attempt = of
        body: dict[str, Any] = {"type": type_, "epoch": self.epoch, "seq": seq, "at": at}
        if turn_id is not None:
            body["turn_id"], body["attempt"] = turn_id, attempt
        body.update(fields)
        data = orjson.dumps(body, option=_UTC_Z)
        return Entry(Frame(seq, type_, turn_id, attempt, data), fields["text"] if type_ in DELTAS else None, at)

    def _keep(self, entry: Entry) -> None:
        frame = entry.frame
        self.head = frame.seq
        self.appended_bytes += len(frame.data)
        entry.end = self.appended_bytes
        entries = self._entries
        if entries is None:
            entries = self._entries = deque()
        entries.append(entry)
        if len(entries) > self._limits.log_events or self.appended_bytes - self._bytes_before > self._limits.log_bytes:
            self._trim(entries)
        if entry.text is not None and frame.type == "message.delta":
            if self._reply_of != (frame.turn_id, frame.attempt):
                self._reply_of, self._reply = (frame.turn_id, frame.attempt), []
            self._reply.append(entry.text)
        elif frame.turn_id is not None and frame.type in TERMINAL:
            self.settle_ending(frame.turn_id)

    def _trim(self, entries: deque[Entry]) -> None:
        while len(entries) > 1 and (
            len(entries) > self._limits.log_events or self.appended_bytes - self._bytes_before > self._limits.log_bytes
        ):
            self._bytes_before = entries.popleft().end

    def _wake(self) -> None:
        for subscription in self._subscriptions:
            subscription.wake()

    def _restart(self, epoch: str, head: int, view: View, reply_of: AttemptKey, reply: str) -> None:
        """Go on from another state. Connections see that their place is gone, and begin anew."""
        self.epoch, self.head, self.view = epoch, head, view
        self._reply_of, self._reply = reply_of, [reply] if reply else []
        self._entries, self._bytes_before = None, self.appended_bytes
        self.beginnings += 1
        self._look_at_endings()
        self._wake()

    def _unsubscribe(self, subscription: "Subscription") -> None:
        # A new list: this may happen while `append` goes through the old one.
        self._subscriptions = [other for other in self._subscriptions if other is not subscription]

    def _after(self, seq: int) -> list[Entry]:
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

    __slots__ = ("_beginning", "_caught_up", "_log", "_read_bytes", "_slow_bytes", "_wake", "epoch", "seq")

    def __init__(self, log: EventLog, seq: int, wake: Callable[[], None], slow_bytes: int) -> None:
        self._log = log
        self._wake = wake
        self._slow_bytes = slow_bytes
        self._caught_up = False
        self._read_bytes = log._end_of(seq)
        self._beginning = log.beginnings
        self.epoch = log.epoch
        self.seq = seq

    @property
    def cursor(self) -> EventCursor:
        return EventCursor(self.epoch, self.seq)

    @property
    def has_more(self) -> bool:
        return self._log.head > self.seq or self.is_lost

    @property
    def is_lost(self) -> bool:
        """The log began anew: there is nothing to read on from. `restart`, and show the connection where it stands."""
        return self._beginning != self._log.beginnings

    @property
    def is_slow(self) -> bool:
        """Caught up once, and now further behind than the limit."""
        return self._caught_up and self._log.appended_bytes - self._read_bytes > self._slow_bytes

    def restart(self) -> None:
        """Read on from the newest event of the log as it is now."""
        self._beginning, self.epoch, self.seq = self._log.beginnings, self._log.epoch, self._log.head
        self._read_bytes = self._log.appended_bytes

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

    def _join(self, run: list[Entry]) -> Frame:
        first, last = run[0].frame, run[-1].frame
        body = {
            "type": last.type,
            "epoch": self.epoch,
            "first_seq": first.seq,
            "seq": last.seq,
            "at": run[-1].at,
            "turn_id": last.turn_id,
            "attempt": last.attempt,
            "text": "".join(entry.text or "" for entry in run),
        }
        return Frame(last.seq, last.type, last.turn_id, last.attempt, orjson.dumps(body, option=_UTC_Z))


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
