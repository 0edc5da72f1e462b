"""The event log of one session: a ring of numbered, encoded events that every connection reads at its own pace.

A connection holds a `Subscription`, a cursor into the shared ring: nothing is queued per connection, so a slow one
costs nothing and delays no other. The owner numbers, encodes and delivers an event at once. Only a terminal event waits
until the replica has it, where there is a replica, so that a crash of the owner does not publish an end twice.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from server.ports import Announcement
from server.protocol.cursors import EventCursor
from server.protocol.limits import Limits
from server.sessions.events.codec import TERMINAL, AttemptKey, Entry, Event, encode, joined
from server.sessions.events.snapshot import NOTHING_OPEN, View


class LogTrimmedError(Exception):
    """The events that this reader needs next were trimmed."""


class ReplicaWriter(Protocol):
    """Copies the log to its replica. Never waits."""

    def wake(self) -> None:
        """There is more to copy."""

    def hurry(self) -> None:
        """A terminal event waits: copy what there is now, then call `EventLog.deliver_pending_end`."""


def new_epoch() -> str:
    return secrets.token_urlsafe(9)


class EventLog:
    """Gapless and ordered within its epoch. Appending never waits.

    Beside the events it keeps what a connection is shown that joins now: the `view` of what is open, and the whole
    running reply, however much of it was trimmed.

    `writable` is False while another instance may own the session: `append` then does nothing.
    """

    __slots__ = (
        "_behind",
        "_bytes_before",
        "_endings",
        "_entries",
        "_limits",
        "_now",
        "_pending_end",
        "_reply",
        "_reply_of",
        "_subscriptions",
        "appended_bytes",
        "beginnings",
        "epoch",
        "head",
        "replica",
        "view",
        "writable",
    )

    def __init__(self, limits: Limits, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._limits = limits
        self._now = now
        self._entries: deque[Entry] | None = None  # made at the first event: an idle session stays small
        self._pending_end: Entry | None = None  # a terminal event, numbered and not delivered yet
        self._behind: list[Event] = []  # not a deque: an empty one takes 760 bytes
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
        self.replica: ReplicaWriter | None = None
        self.writable = True

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def cursor(self) -> EventCursor:
        """After the newest event."""
        return EventCursor(self.epoch, self.head)

    @property
    def is_unused(self) -> bool:
        """Nothing was ever published in it, nor learned from a replica: its epoch is this instance's own."""
        return self.head == 0 and self.beginnings == 0 and self._pending_end is None

    @property
    def reply_of(self) -> AttemptKey:
        """The attempt whose reply is the newest."""
        return self._reply_of

    def reply(self, turn_id: str | None, attempt: int | None) -> str:
        """This attempt's reply so far, text and steps (see `steps`), if no later attempt has any."""
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

    def subscribe(self, after: EventCursor | None, deliver: Callable[[], None]) -> "Subscription":
        """Read from `after` if the log still holds it, else from now on. `deliver` is called when there is more."""
        seq = after.seq if after is not None and self.holds(after) else self.head
        subscription = Subscription(self, seq, deliver, self._limits.slow_consumer_bytes)
        self._subscriptions.append(subscription)
        return subscription

    def has_published(self, event: Announcement) -> bool:
        """Whether the newest event of this type and turn has the same fields."""
        for entry in reversed(self._entries or ()):
            if (entry.type, entry.of) == (event.type, (event.turn_id, event.attempt)):
                published = orjson.loads(entry.data)
                return all(published.get(name) == value for name, value in event.fields.items())
        return False

    def after(self, seq: int) -> list[Entry]:
        """The delivered events behind number `seq`. Raises LogTrimmedError."""
        entries = self._entries
        waiting = self.head - seq
        if entries is None or waiting <= 0:
            return []
        if waiting > len(entries):
            raise LogTrimmedError
        if waiting == 1:
            return [entries[-1]]
        return [entries[index] for index in range(len(entries) - waiting, len(entries))]

    def newest(self, max_bytes: int) -> list[Entry]:
        """The newest events, as many as fit into `max_bytes`."""
        found: deque[Entry] = deque()
        for entry in reversed(self._entries or ()):
            max_bytes -= len(entry.data)
            if max_bytes < 0:
                break
            found.appendleft(entry)
        return list(found)

    # -- the ends of turns -----------------------------------------------------------------------------------------

    def ending(self, turn_id: str) -> "asyncio.Future[None]":
        """Done when the turn's row should be read: it has ended, or may have. Shared by all callers: shield it."""
        return self._endings.setdefault(turn_id, asyncio.get_running_loop().create_future())

    def settle_ending(self, turn_id: str) -> None:
        """The turn is known to have ended."""
        ending = self._endings.pop(turn_id, None)
        if ending is not None and not ending.done():
            ending.set_result(None)

    def settle_endings(self) -> None:
        """Any turn may have ended: have every waiting request read its turn's row."""
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
        """Number, encode and deliver one event. `view` is what is open from this event on."""
        if not self.writable:
            return
        event = Event(type_, (turn_id, attempt), self._now(), view, fields)
        if self._pending_end is None:
            self._append(event)
        else:
            self._behind.append(event)

    def _append(self, event: Event) -> None:
        entry = encode(self.epoch, self.head + 1, event)
        if self.replica is None:
            self._keep(entry)
            self._wake()
        elif event.type in TERMINAL:
            self._pending_end = entry
            self.replica.hurry()
        else:
            self._keep(entry)
            self._wake()
            self.replica.wake()

    @property
    def pending_end(self) -> Entry | None:
        """A terminal event that is delivered as soon as the replica has it."""
        return self._pending_end

    def deliver_pending_end(self) -> None:
        """The replica has the pending end, or is unavailable: deliver it, and what was appended behind it."""
        entry, self._pending_end = self._pending_end, None
        if entry is None:
            return
        self._keep(entry)
        self._wake()
        while self._behind and self._pending_end is None:
            self._append(self._behind.pop(0))

    def show(self, view: View) -> None:
        """Set what is open, without an event."""
        self.view = view

    def extend(self, entries: Sequence[Entry], view: View | None) -> None:
        """Deliver events that the owner appended elsewhere."""
        for entry in entries:
            self._keep(entry)
        if view is not None:
            self.view = view
        self._wake()

    def prepend(self, older: Sequence[Entry]) -> None:
        """Add events that are older than the oldest one here."""
        if self._entries is None:
            self._entries = deque()
        for entry in reversed(older):
            entry.end = self._bytes_before
            self._bytes_before -= len(entry.data)
            self._entries.appendleft(entry)

    def restart(self, epoch: str, head: int, view: View, reply_of: AttemptKey, reply: str) -> None:
        """Go on from another state. Every subscription is lost, and its connection is sent `ready`."""
        self.epoch, self.head, self.view = epoch, head, view
        self._reply_of, self._reply = reply_of, [reply] if reply else []
        self._entries, self._bytes_before = None, self.appended_bytes
        self._pending_end = None
        self._behind.clear()
        self.beginnings += 1
        self.settle_endings()
        self._wake()

    def close(self) -> None:
        """Append nothing more, and have requests that wait for an end read the rows."""
        self.writable = False
        self._pending_end = None
        self._behind.clear()
        self.settle_endings()

    # -- the ring ------------------------------------------------------------------------------------------------

    def _keep(self, entry: Entry) -> None:
        self.head = entry.seq
        self.appended_bytes += len(entry.data)
        entry.end = self.appended_bytes
        if entry.view is not None:
            self.view = entry.view
        entries = self._entries
        if entries is None:
            entries = self._entries = deque()
        entries.append(entry)
        if len(entries) > self._limits.log_events or self.appended_bytes - self._bytes_before > self._limits.log_bytes:
            self._trim(entries)
        if entry.part is not None:
            if self._reply_of != entry.of:
                self._reply_of, self._reply = entry.of, []
            self._reply.append(entry.part)
        elif entry.type in TERMINAL and entry.of[0] is not None:
            self.settle_ending(entry.of[0])

    def _trim(self, entries: deque[Entry]) -> None:
        while len(entries) > 1 and (
            len(entries) > self._limits.log_events or self.appended_bytes - self._bytes_before > self._limits.log_bytes
        ):
            self._bytes_before = entries.popleft().end

    def _wake(self) -> None:
        for subscription in self._subscriptions:
            subscription.deliver()

    def _unsubscribe(self, subscription: "Subscription") -> None:
        # A new list: this may happen while `append` goes through the old one.
        self._subscriptions = [other for other in self._subscriptions if other is not subscription]

    def _end_of(self, seq: int) -> int:
        """Bytes appended up to and including event `seq`."""
        entries = self._entries
        if entries is None or seq >= self.head:
            return self.appended_bytes
        index = len(entries) - (self.head - seq)
        return entries[index].end if index >= 0 else self._bytes_before


class Subscription:
    """One connection's cursor into the log."""

    __slots__ = ("_beginning", "_caught_up", "_log", "_read_bytes", "_slow_bytes", "deliver", "epoch", "seq")

    def __init__(self, log: EventLog, seq: int, deliver: Callable[[], None], slow_bytes: int) -> None:
        self._log = log
        self.deliver = deliver
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
        """The log was restarted: call `restart`, and send the connection a snapshot."""
        return self._beginning != self._log.beginnings

    @property
    def is_slow(self) -> bool:
        """Caught up once, and now further behind than the limit."""
        return self._caught_up and self._log.appended_bytes - self._read_bytes > self._slow_bytes

    def restart(self) -> None:
        """Read on from the newest event of the log as it is now."""
        self._beginning, self.epoch, self.seq = self._log.beginnings, self._log.epoch, self._log.head
        self._read_bytes = self._log.appended_bytes

    def take(self) -> list[Entry]:
        """Everything that waits, adjacent deltas of one type, turn and attempt joined. Raises LogTrimmedError."""
        entries = self._log.after(self.seq)
        if entries:
            self.seq = entries[-1].seq
            self._read_bytes = entries[-1].end
        self._caught_up = True
        if len(entries) == 1:
            return entries
        return joined(self.epoch, entries)

    def take_delta(self, max_bytes: int) -> Entry | None:
        """The event that waits, if it is a single one, a delta, and of this size at most."""
        if self._log.head != self.seq + 1 or self.is_lost:
            return None
        [entry] = self._log.after(self.seq)
        if entry.text is None or len(entry.data) > max_bytes:
            return None
        self.seq, self._read_bytes, self._caught_up = entry.seq, entry.end, True
        return entry

    def close(self) -> None:
        """Stop reading. Calling it again does nothing."""
        self._log._unsubscribe(self)
