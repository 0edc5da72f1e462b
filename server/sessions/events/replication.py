"""How the log of one session is shared: replicated while this instance owns the session, followed otherwise."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import structlog

from server.ports import Lease, LogMark, Published, ReplicaState, ReplicasUnavailableError
from server.protocol.cursors import EventCursor
from server.sessions.events.codec import AttemptKey, decode_attempt
from server.sessions.events.follower import Follower
from server.sessions.events.log import EventLog, new_epoch
from server.sessions.events.replicator import Replica, Replicator
from server.sessions.events.snapshot import View

log = structlog.get_logger(__name__)

LEVEL_SECONDS: Final = 2.0
"""How long a release waits until the replica has everything. Without it the next owner begins a new epoch."""


class Replication(Protocol):
    """What a session asks of its log's replication. Its methods that wait are called by the session's mailbox alone,
    but for `open`, before there is one, and `fetch`."""

    @property
    def is_shared(self) -> bool:
        """Whether other instances read this log, so that its owner alone may append to it."""
        ...

    @property
    def is_available(self) -> bool:
        """Whether what is appended here reaches other instances, and what they append is read here."""
        ...

    @property
    def silent_for(self) -> float:
        """Seconds since the owner last published anything, on an instance that follows."""
        ...

    async def open(self) -> None:
        """Follow the replica. Raises ReplicasUnavailableError."""
        ...

    async def take(self, lease: Lease, mark: LogMark | None) -> None:
        """Become the owner of the log: in its epoch if the log or its replica stands at `mark`, where the last owner
        released it, else in a new one. Raises FencedError."""
        ...

    async def prepare_release(self) -> tuple[LogMark, bool]:
        """Bring the replica level and append nothing more. Where the log stops, and whether the replica has it all."""
        ...

    def kept(self, lease: Lease, *, may_be_released: bool) -> None:
        """Go on with the lease; in a new epoch if it `may_be_released`: another owner may have been there since."""
        ...

    async def fetch(self, after: EventCursor) -> None:
        """Try to hold the events behind `after`. Raises ReplicasUnavailableError."""
        ...

    def close(self) -> None:
        """The session ends on this instance."""
        ...


class NoReplication:
    """One instance alone: its log is the only one, and always its own."""

    is_shared = False
    is_available = True
    silent_for = 0.0

    def __init__(self, events: EventLog) -> None:
        self._log = events

    async def open(self) -> None:
        pass

    async def take(self, lease: Lease, mark: LogMark | None) -> None:
        pass

    async def prepare_release(self) -> tuple[LogMark, bool]:
        return LogMark(self._log.epoch, self._log.head), True

    def kept(self, lease: Lease, *, may_be_released: bool) -> None:
        pass

    async def fetch(self, after: EventCursor) -> None:
        pass

    def close(self) -> None:
        self._log.close()


class SharedLog:
    """See `Replication`. `fenced` is called when another owner writes to the replica."""

    is_shared = True

    def __init__(
        self,
        user_id: str,
        events: EventLog,
        replicator: Replicator,
        *,
        fenced: Callable[[], None],
        closed: Callable[[], None],
    ) -> None:
        backend = replicator.backend
        self.user_id = user_id
        self.follower = Follower(user_id, events, backend)
        self._log = events
        self._backend = backend
        self._replicator = replicator
        self._replica: Replica | None = None
        self._copied: int | None = None  # the newest event in the replica when a release was prepared
        self._fenced = fenced
        self._closed = closed
        self._is_closed = False
        events.writable = False

    @property
    def is_available(self) -> bool:
        return self._backend.is_available

    @property
    def silent_for(self) -> float:
        return asyncio.get_running_loop().time() - self.follower.heard_at

    async def open(self) -> None:
        await self._backend.follow(self.user_id)
        if not self._backend.is_available:  # one that is full can be read, and yet no owner can write to it
            raise ReplicasUnavailableError
        await self.follower.synchronize()

    async def synchronize(self) -> None:
        """Follow, also where that failed before, and catch up. Raises ReplicasUnavailableError."""
        if not (self.is_owned or self._is_closed):
            await self._backend.follow(self.user_id)
            await self.follower.synchronize()
        if self.is_owned:  # since then
            self._backend.unfollow(self.user_id)

    @property
    def is_owned(self) -> bool:
        """Whether this instance is the one that appends, as far as it knows."""
        return self._replica is not None

    def published(self, published: Published) -> bool:
        """See `Follower.published`. While this instance owns the log it reads its own events here at most."""
        return self._replica is not None or self.follower.published(published)

    # -- becoming the owner ----------------------------------------------------------------------------------------

    async def take(self, lease: Lease, mark: LogMark | None) -> None:
        if self._replica is not None and lease.fence == self._replica.lease.fence + 1:
            self._replica.lease = lease  # it ran out, and no other owner had it in between
            return
        assert self._replica is None, "an owner that others have replaced is lost"
        async with self.follower.reading:
            seq = await self._position(lease, mark)
        if self._is_closed:  # meanwhile: the user may have another session here by now
            return
        self.follower.fence = lease.fence
        self._own(lease, seq)
        self._backend.unfollow(self.user_id)

    async def _position(self, lease: Lease, mark: LogMark | None) -> int | None:
        """Bring the log to where this owner begins. The number of the newest event in the replica, None: rewrite it."""
        if mark is not None and mark == LogMark(self._log.epoch, self._log.head):
            return mark.head
        try:
            state = await self._backend.take_over(lease)
            if state is not None and mark == LogMark(state.epoch, state.head):
                await self.follower.apply(state)
                return state.head
        except ReplicasUnavailableError:
            self._backend.report_unavailable()
            state = None
        if state is not None or not self._log.is_unused:
            self._begin_anew(state)
        return None

    def _begin_anew(self, state: ReplicaState | None) -> None:
        """In a new epoch, from the replica or from the copy here where that is further."""
        own = self._log
        is_own_further = (
            state is None or state.fence < self.follower.fence or (state.epoch == own.epoch and state.head <= own.head)
        )
        view: View = own.view
        of: AttemptKey = own.reply_of
        text = own.reply(*of)
        if state is not None and not is_own_further:
            view, of, text = View.decode(state.view), decode_attempt(state.text_of), state.text
        own.restart(new_epoch(), 0, view, of, text)
        log.info("log.epoch_begun", user_id=self.user_id, epoch=own.epoch, had_replica=state is not None)

    def _own(self, lease: Lease, seq: int | None) -> None:
        self._replica = self._replicator.own(self._log, lease, seq, self._fenced)
        self._log.writable = True

    def _disown(self) -> None:
        if self._replica is not None:
            self._replicator.disown(self._replica)
            self._replica = None

    # -- ceasing to be the owner -----------------------------------------------------------------------------------

    async def prepare_release(self) -> tuple[LogMark, bool]:
        if self._replica is not None and self._backend.is_available:
            with suppress(TimeoutError):
                async with asyncio.timeout(LEVEL_SECONDS):
                    await self._follow_and_level(self._replica)
        is_level = self._replica is None or self._replica.is_level
        self._copied = None if self._replica is None else self._replica.seq
        self._disown()
        self._log.deliver_pending_end()  # and all behind it: no event waits for a replica any more
        self._log.writable = False
        return LogMark(self._log.epoch, self._log.head), is_level

    async def _follow_and_level(self, replica: Replica) -> None:
        """From here on nothing is missed that the next owner publishes."""
        try:
            await self._backend.follow(self.user_id)
        except ReplicasUnavailableError:
            self._backend.report_unavailable()
        await replica.level()

    def kept(self, lease: Lease, *, may_be_released: bool) -> None:
        own = self._log
        if may_be_released:
            own.restart(new_epoch(), 0, own.view, own.reply_of, own.reply(*own.reply_of))
        self._own(lease, None if may_be_released else self._copied)
        self._backend.unfollow(self.user_id)

    async def fetch(self, after: EventCursor) -> None:
        if self._backend.is_available:
            await self.follower.fetch(after)

    def close(self) -> None:
        self._is_closed = True
        self._disown()
        self._log.close()
        self._backend.unfollow(self.user_id)
        self._closed()
