"""Keeps a session's log level with its replica, while another instance owns the session or none does."""

import asyncio

import structlog

from server.ports import Published, ReplicaBackend, ReplicaState
from server.protocol.cursors import EventCursor
from server.sessions.events.codec import decode, decode_attempt
from server.sessions.events.log import EventLog
from server.sessions.events.snapshot import View

log = structlog.get_logger(__name__)

AHEAD_SECONDS = 0.5
"""How long a follower waits for events that a client has seen already, elsewhere."""


class Follower:
    """`fence` is the newest owner's that was seen: what older ones publish is ignored.

    `heard_at`: when, by the loop's clock, an owner last published anything. `reading` is held while the log is
    brought level: what is published meanwhile is read afterwards.
    """

    __slots__ = ("_backend", "_log", "_missed", "_user_id", "fence", "heard_at", "reading")

    def __init__(self, user_id: str, log: EventLog, backend: ReplicaBackend) -> None:
        self.fence = 0
        self._user_id = user_id
        self._log = log
        self._backend = backend
        self.heard_at = asyncio.get_running_loop().time()
        self.reading = asyncio.Lock()
        self._missed = False

    def published(self, published: Published) -> bool:
        """Deliver what the owner published. False: something is missing, `synchronize`."""
        if published.fence < self.fence:
            return True
        self.heard_at = asyncio.get_running_loop().time()
        if self.reading.locked():
            self._missed = True
            return True
        if published.epoch != self._log.epoch and published.state is not None:
            self._restart(published.state)
            return True
        if published.epoch != self._log.epoch or published.after > self._log.head:
            return False
        self.fence = published.fence
        missing = published.events[self._log.head - published.after :]
        is_newest = published.after + len(published.events) >= self._log.head
        view = View.decode(published.view) if published.view is not None and is_newest else None
        if missing or view is not None:
            self._log.extend([decode(data) for data in missing], view)
        return True

    async def synchronize(self) -> None:
        """Catch up with the replica; where there is none, change nothing. Raises ReplicasUnavailableError."""
        async with self.reading:
            self._missed = True
            while self._missed and not self._log.writable:
                self._missed = False
                state = await self._backend.state(self._user_id)
                if state is not None and not self._log.writable and state.fence >= self.fence:
                    await self.apply(state)

    async def apply(self, state: ReplicaState) -> None:
        """Bring the log to `state`, unless it is further. With `reading` held. Raises ReplicasUnavailableError."""
        if state.epoch == self._log.epoch and state.head <= self._log.head:
            self.fence = max(self.fence, state.fence)
            return
        if state.epoch == self._log.epoch:
            missing = await self._backend.read(self._user_id, state.epoch, self._log.head, state.head)
            if missing is not None:
                self.fence = max(self.fence, state.fence)
                self._log.extend([decode(data) for data in missing], View.decode(state.view))
                return
        self._restart(state)

    def _restart(self, state: ReplicaState) -> None:
        self.fence = max(self.fence, state.fence)
        view, text_of = View.decode(state.view), decode_attempt(state.text_of)
        self._log.restart(state.epoch, state.head, view, text_of, state.text)

    async def fetch(self, after: EventCursor) -> None:
        """Try to hold the events behind `after`. Raises ReplicasUnavailableError."""
        if self._log.holds(after):
            return
        if not self._log.writable and (after.epoch != self._log.epoch or after.seq > self._log.head):
            await self.synchronize()
            await self._wait_for(after)
        if after.epoch == self._log.epoch and after.seq < self._log.oldest:
            await self._fetch_older(after.seq)

    async def _wait_for(self, cursor: EventCursor) -> None:
        """An owner delivers an event before it copies it, so a client can be ahead of what is here."""
        clock = asyncio.get_running_loop().time
        until = clock() + AHEAD_SECONDS
        while cursor.epoch == self._log.epoch and cursor.seq > self._log.head and clock() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def _fetch_older(self, seq: int) -> None:
        epoch, oldest = self._log.epoch, self._log.oldest
        older = await self._backend.read(self._user_id, epoch, seq, oldest)
        if older is not None and (self._log.epoch, self._log.oldest) == (epoch, oldest):
            self._log.prepend([decode(data) for data in older])
