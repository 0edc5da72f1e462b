"""The event log of a session that several instances share: the owner's events reach the relay before any connection.

So a cursor that a client holds is one that every instance knows. Followers keep a copy of what the owner published.
While the relay is away an owner goes on from memory, in an epoch that no other instance ever heard of.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog

from server.ports import Batch, EventRelay, FencedError, Found, Lease, Outcome, Published, RelayAwayError, SharedState
from server.protocol.cursors import EventCursor
from server.protocol.limits import Limits
from server.sessions.drafts import (
    Correction,
    Event,
    Sending,
    attempt_of,
    decoded,
    events_before_a_correction,
    key_of,
)
from server.sessions.log import AttemptKey, EventLog, new_epoch
from server.sessions.outbox import Outbox
from server.sessions.views import View

log = structlog.get_logger(__name__)


class RelayedLog(EventLog):
    """See the module. `lease` is set while this instance is the one that writes."""

    __slots__ = (
        "_agreeing",
        "_is_guess",
        "_is_known",
        "_missed",
        "_outbox",
        "_relay",
        "_under_way",
        "_waiting",
        "is_detached",
        "is_fresh",
        "lease",
        "on_closed",
        "user_id",
    )

    is_shared = True

    def __init__(
        self, user_id: str, relay: EventRelay, outbox: Outbox, limits: Limits, now: Callable[[], datetime]
    ) -> None:
        super().__init__(limits, now)
        self.user_id = user_id
        self.lease: Lease | None = None
        self.is_fresh = False
        self.on_closed: Callable[[RelayedLog], None] | None = None
        self._relay = relay
        self._outbox = outbox
        self._waiting: deque[Event | Correction] = deque()
        self._under_way: Sending | None = None
        self.is_detached = False
        self._agreeing = asyncio.Lock()
        self._missed = False
        self._is_guess = False  # what is open was found in the rows, and not yet in the log
        self._is_known = False  # the epoch is the relay's, or was

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
        if self.is_detached:
            super().append(type_, turn_id, attempt, view=view, **fields)
        if self.is_detached or self.lease is None:
            return  # whoever writes now tells it from the rows
        self._waiting.append(Event(type_, turn_id, attempt, self._now(), fields, view))
        self._outbox.add(self)

    def show(self, view: View) -> None:
        """The log itself says what is open; only where nobody wrote that yet, it is learned from elsewhere."""
        if not self.is_fresh:
            return
        if view:  # in an epoch of our own: elsewhere other rows may be found, and shown
            self._restart(new_epoch(), 0, view, (None, None), "")
            self._is_guess = True
        super().show(view)

    def correct(self, turn_id: str, attempt: int, text: str) -> None:
        if self.is_detached:
            super().correct(turn_id, attempt, text)
            return
        self._waiting.append(Correction((turn_id, attempt), text))
        self._outbox.add(self)

    def sending(self) -> Sending | None:
        """Number and encode what waits, up to the next correction. None: there is nothing to send now.

        Until `settle` or `take_back` says what became of it, it is under way.
        """
        if self.lease is None or self.is_detached:
            return None
        events = tuple(events_before_a_correction(self._waiting))
        if not events:
            return None
        entries = tuple(
            self._encoded(self.head + place, event.type, (event.turn_id, event.attempt), event.at, event.fields)
            for place, event in enumerate(events, start=1)
        )
        view, reply_of, text = None, None, ""
        for event, entry in zip(events, entries, strict=True):
            view = view if event.view is None else event.view
            if event.type == "message.delta":
                key = key_of((event.turn_id, event.attempt))
                reply_of, text = key, f"{text if reply_of == key else ''}{entry.text}"
        batch = Batch(
            self.lease,
            self.epoch,
            self.head,
            max(self.oldest, self.head + len(entries) - self._limits.log_events),
            tuple(entry.frame.data for entry in entries),
            None if view is None else view.encode(),
            reply_of,
            text,
        )
        self._under_way = Sending(batch, entries, events)
        return self._under_way

    async def settle(self, outcome: Outcome) -> None:
        """Deliver what was appended. A log that was lost is begun anew. Raises RelayAwayError."""
        sending, self._under_way = self._under_way, None
        if sending is None or sending.batch.epoch != self.epoch:
            return
        if sending.batch.lease != self.lease:
            self._outbox.add(self)  # taken again by ourselves in between: fenced by our own newer fence
            return
        if outcome is Outcome.APPENDED:
            for entry, event in zip(sending.entries, sending.events, strict=True):
                self._waiting.popleft()
                self._keep(entry)
                if event.view is not None:
                    self.view = event.view
            self._wake()
        elif outcome is Outcome.FENCED:
            self._fenced()
        else:
            log.warning("log.lost", user_id=self.user_id, head=self.head)
            await self._begin(self._reply_of, "".join(self._reply))

    def take_back(self) -> None:
        """What was under way may or may not have arrived."""
        self._under_way = None

    async def correct_next(self) -> None:
        """Begin anew where a correction is what comes next. Raises RelayAwayError."""
        if self._waiting and isinstance(correction := self._waiting[0], Correction) and not self.is_detached:
            await self._begin(correction.reply_of, correction.text)
            if self._waiting and self._waiting[0] is correction:
                self._waiting.popleft()
        if self._waiting:
            self._outbox.add(self)

    def detach(self) -> None:
        """The relay is away: go on from memory. What was on its way may have arrived, so the epoch is another one."""
        if self.lease is None or self.is_detached:
            return
        self.is_detached, self._under_way = True, None
        self._restart(new_epoch(), 0, self.view, self._reply_of, "".join(self._reply))
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            if isinstance(one, Event):
                super().append(one.type, one.turn_id, one.attempt, view=one.view, **one.fields)
            else:
                super().correct(*one.reply_of, one.text)

    async def attach_again(self) -> None:
        """The relay is back: show it the log as it goes on here. Raises RelayAwayError."""
        if self.lease is None or not self.is_detached:
            return
        self.is_detached = False  # what is appended from now on waits for its place behind the beginning
        reply = "".join(self._reply)
        try:
            await self._relay.begin(self.lease, self._state(self.epoch, self.head, self._reply_of, reply))
        except FencedError:
            self._fenced()

    async def _begin(self, reply_of: AttemptKey, reply: str) -> None:
        if self.lease is None:
            return
        epoch = new_epoch()
        try:
            await self._relay.begin(self.lease, self._state(epoch, 0, reply_of, reply))
        except FencedError:
            self._fenced()
            return
        self._restart(epoch, 0, self.view, reply_of, reply)
        if self._waiting:
            self._outbox.add(self)

    def _state(self, epoch: str, head: int, reply_of: AttemptKey, reply: str) -> SharedState:
        return SharedState(epoch, head, self.view.encode(), key_of(reply_of), reply)

    def _fenced(self) -> None:
        """Somebody else writes now: what waits here is for them to tell, from the rows."""
        self._waiting.clear()
        self.lease, self.is_detached = None, False
        if self.on_fenced is not None:
            self.on_fenced()

    # -- becoming the one that writes, and ceasing to be ---------------------------------------------------------------

    async def take(self, lease: Lease) -> None:
        self._missed = True
        try:
            await self._take(lease)
        except RelayAwayError:
            self._relay.report_away()
            self.lease = lease
            self.detach()

    async def _take(self, lease: Lease) -> None:
        if self._relay.is_away:
            raise RelayAwayError
        async with self._agreeing:
            found = await self._relay.take(lease, self._epoch_for_a_new_log())
            self._is_guess = False
            await self._agree(found)
            self.lease = lease
        self._relay.unfollow(self.user_id)
        if not found.intact:
            await self._begin(self._reply_of, "".join(self._reply))

    async def give_back(self) -> None:
        await self._outbox.emptied(self)
        if self.lease is None or self.is_detached:
            return
        lease, self.lease = self.lease, None
        self._waiting.clear()  # of what was not said in time some may have arrived: the rows tell the rest
        try:
            await self.open()
        except RelayAwayError:
            self._relay.report_away()
            self.lease = lease
            self.detach()

    @property
    def is_behind(self) -> bool:
        """Whether events still wait here for the relay."""
        return bool(self._waiting)

    # -- following ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Raises RelayAwayError."""
        await self._relay.follow(self.user_id)
        if self._relay.is_away:  # one that is full can be read, and yet no owner can write to it
            raise RelayAwayError
        await self.synchronize()

    def published(self, news: Published) -> bool:
        """Take what the owner published. False: something is missing, `synchronize`."""
        if self.lease is not None:
            return True
        if self._agreeing.locked():
            self._missed = True
            return True
        if news.epoch != self.epoch or news.head > self.head:
            return False
        self._copy(news.events[self.head - news.head :])
        self.is_fresh = self.is_fresh and news.view is None
        if news.view is not None and news.head + len(news.events) == self.head:
            self.view = View.decode(news.view)
        self._wake()
        return True

    async def synchronize(self) -> None:
        """Catch up with the relay. Raises RelayAwayError."""
        async with self._agreeing:
            self._missed = True
            while self._missed and self.lease is None:
                self._missed = False
                found = await self._relay.look(self.user_id, self._epoch_for_a_new_log())
                await self._agree(found)

    def _epoch_for_a_new_log(self) -> str:
        """One in which nobody has said anything yet: a number means one event for ever."""
        return new_epoch() if self._is_known else self.epoch

    async def _agree(self, found: Found) -> None:
        """Hold what the relay holds, or begin anew from it where what lies between is not kept."""
        state, view = found.state, View.decode(found.state.view)
        self.is_fresh, self._is_known = not state.view, True
        if self._is_guess and self.is_fresh:
            return
        if state.epoch == self.epoch and state.head >= self.head:
            missing = await self._read(self.head, state.head)
            if missing is not None:
                self._copy(missing)
                if state.view:
                    self.view = view
                self._wake()
                return
        self._is_guess = False
        self._restart(state.epoch, state.head, view, attempt_of(state.text_of), state.text)

    async def fetch(self, after: EventCursor) -> None:
        """Read from the relay what lies between `after` and the oldest event here. Raises RelayAwayError."""
        if after.epoch != self.epoch or after.seq >= self.oldest or self.is_detached:
            return
        oldest = self.oldest
        older = await self._read(after.seq, oldest)
        if older is None or after.epoch != self.epoch or self.oldest != oldest:
            return
        entries = self._entries if self._entries is not None else deque()
        self._entries = entries
        for data in reversed(older):
            entry = decoded(data)
            entry.end = self._bytes_before
            self._bytes_before -= len(data)
            entries.appendleft(entry)

    async def _read(self, after: int, upto: int) -> tuple[bytes, ...] | None:
        if after == upto:
            return ()
        return await self._relay.read(self.user_id, self.epoch, after, upto)

    def _copy(self, events: tuple[bytes, ...]) -> None:
        for data in events:
            self._keep(decoded(data))

    def close(self) -> None:
        super().close()
        self.lease = None
        self._waiting.clear()
        self._outbox.leave(self)
        if self.on_closed is not None:
            self.on_closed(self)
        self._relay.unfollow(self.user_id)
