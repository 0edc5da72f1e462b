"""Copies the events of all sessions that this instance owns to their replicas: one task, one round trip for all.

Each session's replica is written behind its log, from a cursor into it such as a connection has. Only terminal events
wait for it (see `EventLog`).
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import structlog

from server.ports import Append, Lease, Refusal, ReplicaBackend, ReplicaState, ReplicasUnavailableError, Rewrite
from server.protocol.limits import Limits
from server.sessions.events.codec import Entry, encode_attempt, reply_parts
from server.sessions.events.log import EventLog

log = structlog.get_logger(__name__)

WINDOW_SECONDS: Final = 0.02
"""The least time between two rounds. The first event after a silence goes at once, and so does a terminal one."""
SILENCE_SECONDS: Final = 5.0
"""After so long without an event an empty append shows followers that there is an owner, and finds a lost replica."""
SILENCE_CHECK_SECONDS: Final = 1.0
SESSION_BYTES: Final = 64 * 1024
"""Events of one session in a round. At least one event is sent, however large."""
REWRITE_BYTES: Final = 1024 * 1024
"""After so many bytes of replicas that are written anew, over all sessions, the others wait for the next round."""


class Replica:
    """A session's replica as its owner writes it. `seq` is the newest event in it, None where it has to be rewritten.

    `fenced` is called when another owner writes.
    """

    __slots__ = ("_changed", "_replicator", "base", "fenced", "lease", "log", "sent_at", "seq")

    def __init__(
        self, replicator: "Replicator", log: EventLog, lease: Lease, seq: int | None, fenced: Callable[[], None]
    ) -> None:
        self.log = log
        self.lease = lease
        self.seq = seq
        self.base = _state(log, lease) if seq is None else None
        """Where an epoch begins: followers start there, and then receive each event."""
        self.fenced = fenced
        self.sent_at = replicator.clock()
        self._replicator = replicator
        self._changed: asyncio.Future[None] | None = None

    @property
    def is_level(self) -> bool:
        """Whether the replica has everything that was appended here."""
        return self.seq == self.log.head and self.log.pending_end is None

    def wake(self) -> None:
        self._replicator.add(self)

    def hurry(self) -> None:
        self._replicator.add(self, at_once=True)

    async def level(self) -> None:
        """Return when the replica has everything, or is unavailable."""
        while not self.is_level and self._replicator.is_writing(self):
            self.hurry()
            if self._changed is None:
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._changed)

    def changed(self) -> None:
        """It was written to, or can no longer be."""
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)


class Replicator:
    """Run `run` for as long as events are to be copied. `may_rewrite`: whether the leases were renewed lately."""

    def __init__(
        self,
        backend: ReplicaBackend,
        limits: Limits,
        may_rewrite: Callable[[], bool],
        clock: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
    ) -> None:
        self.clock = clock
        self.backend = backend
        self._limits = limits
        self._may_rewrite = may_rewrite
        self._owned: dict[Replica, None] = {}
        self._behind: dict[Replica, None] = {}
        self._wanted = asyncio.Event()
        self._urgent = asyncio.Event()
        self._visited_at = 0.0

    def own(self, log: EventLog, lease: Lease, seq: int | None, fenced: Callable[[], None]) -> Replica:
        """Copy what is appended to this log from now on, behind event `seq`; None: rewrite the replica first."""
        replica = Replica(self, log, lease, seq, fenced)
        self._owned[replica] = None
        log.replica = replica
        if not replica.is_level:
            self.add(replica)
        return replica

    def disown(self, replica: Replica) -> None:
        """Copy nothing more of it."""
        self._owned.pop(replica, None)
        self._behind.pop(replica, None)
        replica.log.replica = None
        replica.changed()

    def add(self, replica: Replica, *, at_once: bool = False) -> None:
        if replica not in self._owned:
            return
        self._behind[replica] = None
        self._wanted.set()
        if at_once:
            self._urgent.set()

    def is_writing(self, replica: Replica) -> bool:
        return replica in self._owned and self.backend.is_available

    def availability_changed(self) -> None:
        """The backend became unavailable, or recovered: what it holds may be old."""
        for replica in self._owned:
            self._behind[replica] = None
        self._wanted.set()
        self._urgent.set()

    # -- the task ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        last = -WINDOW_SECONDS
        while True:
            await self._until_wanted()
            await self._rest(last + WINDOW_SECONDS - self.clock())
            self._wanted.clear()
            self._urgent.clear()
            last = self.clock()
            try:
                if self.backend.is_available:
                    await self._round()
            except ReplicasUnavailableError:
                self.backend.report_unavailable()
            except Exception:  # sessions whose terminal events wait for the replica go on without it
                log.exception("replicator.failed")
                self.backend.report_unavailable()
            if not self.backend.is_available:
                self._go_on_without()

    async def _until_wanted(self) -> None:
        self._visit_silent()
        while not self._wanted.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENCE_CHECK_SECONDS):
                    await self._wanted.wait()
            self._visit_silent()

    def _visit_silent(self) -> None:
        """Append to silent replicas as well, every `SILENCE_CHECK_SECONDS`."""
        now = self.clock()
        if now < self._visited_at + SILENCE_CHECK_SECONDS:
            return
        self._visited_at = now
        for replica in self._owned:
            if replica.sent_at <= now - SILENCE_SECONDS:
                self.add(replica)

    async def _rest(self, seconds: float) -> None:
        if seconds > 0 and not self._urgent.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._urgent.wait()
            except TimeoutError:
                pass

    def _go_on_without(self) -> None:
        self._behind.clear()
        for replica in tuple(self._owned):
            replica.log.deliver_pending_end()
            replica.changed()

    async def _round(self) -> None:
        """Raises ReplicasUnavailableError. Nothing is lost then: each cursor stays where it is."""
        behind, self._behind = self._behind, {}
        now, appends = self.clock(), list[tuple[Replica, Append]]()
        for replica in behind:
            if replica.seq is not None and replica.seq < replica.log.oldest:
                replica.seq = None  # trimmed before it was copied
            if replica.seq is not None:
                replica.sent_at = now
                appends.append((replica, self._append_of(replica)))
        if appends:
            answers = await self.backend.append([append for _, append in appends])
            for (replica, append), answer in zip(appends, answers, strict=True):
                self._answered(replica, append.lease, append.epoch, append.after + len(append.events), answer)
        await self._rewrite([replica for replica in self._owned if replica.seq is None])
        for replica in behind:
            if replica.seq is not None and not replica.is_level:
                self.add(replica)

    def _append_of(self, replica: Replica) -> Append:
        source, seq = replica.log, replica.seq
        assert seq is not None
        entries = _limited(source.after(seq), SESSION_BYTES)
        if source.pending_end is not None and (not entries or entries[-1].seq == source.head):
            entries.append(source.pending_end)
        of, text = reply_parts(entries)
        views = [entry.view for entry in entries if entry.view is not None]
        return Append(
            replica.lease,
            source.epoch,
            seq,
            tuple([entry.data for entry in entries]),
            max(source.oldest, seq + len(entries) - self._limits.log_events),
            views[-1].encode() if views else None,
            "" if of is None else encode_attempt(of),
            text,
        )

    def _answered(self, replica: Replica, lease: Lease, epoch: str, expected: int, answer: int | Refusal) -> None:
        source = replica.log
        if replica not in self._owned or replica.lease != lease or source.epoch != epoch:
            return  # released, or begun anew, in the meantime
        newest = source.head if source.pending_end is None else source.pending_end.seq
        if answer is Refusal.FENCED:
            self.disown(replica)
            replica.fenced()
        elif answer is Refusal.ABSENT or answer > newest:
            log.warning("replica.absent", user_id=lease.user_id, head=source.head)
            replica.seq = None
        else:
            if answer != expected:
                log.warning("replica.behind", user_id=lease.user_id, head=answer, expected=expected)
            replica.seq, replica.base = answer, None
            if source.pending_end is not None and answer >= source.pending_end.seq:
                source.deliver_pending_end()
        replica.changed()

    async def _rewrite(self, replicas: Iterable[Replica]) -> None:
        """Where the replica is missing. An owner that could not renew its lease lately may no longer be the owner."""
        if not self._may_rewrite():
            return
        rewrites: list[tuple[Replica, Rewrite]] = []
        left = REWRITE_BYTES
        for replica in replicas:
            if left <= 0:
                self.add(replica)
                continue
            rewrite = self._rewrite_of(replica)
            left -= len(rewrite.state.text) + sum(map(len, rewrite.events))
            replica.sent_at = self.clock()
            rewrites.append((replica, rewrite))
        if rewrites:
            answers = await self.backend.rewrite([rewrite for _, rewrite in rewrites])
            for (replica, rewrite), answer in zip(rewrites, answers, strict=True):
                self._answered(replica, rewrite.lease, rewrite.state.epoch, rewrite.state.head, answer)
                if replica in self._owned and not replica.is_level:
                    self.add(replica, at_once=True)

    def _rewrite_of(self, replica: Replica) -> Rewrite:
        base = replica.base
        if base is not None and base.epoch == replica.log.epoch and replica.log.oldest <= base.head:
            return Rewrite(replica.lease, base)
        events = tuple(entry.data for entry in replica.log.newest(SESSION_BYTES))
        return Rewrite(replica.lease, _state(replica.log, replica.lease), events)


def _state(source: EventLog, lease: Lease) -> ReplicaState:
    of = source.reply_of
    view = source.view.encode()
    return ReplicaState(lease.fence, source.epoch, source.head, view, encode_attempt(of), source.reply(*of))


def _limited(entries: list[Entry], max_bytes: int) -> list[Entry]:
    """The first of them that fit, and at least one."""
    for count, entry in enumerate(entries):
        max_bytes -= len(entry.data)
        if max_bytes < 0:
            return entries[: max(count, 1)]
    return entries
