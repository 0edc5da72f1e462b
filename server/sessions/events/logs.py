"""The logs of all sessions of an instance: in its memory alone, or replicated so that every instance can read them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import datetime
from functools import partial
from typing import Final, Protocol

import structlog

from server.aio import TaskSet
from server.ports import ControlMessage, Published, ReplicaBackend, ReplicasUnavailableError
from server.protocol.limits import Limits
from server.sessions.events.log import EventLog
from server.sessions.events.replication import NoReplication, Replication, SharedLog
from server.sessions.events.replicator import Replicator

log = structlog.get_logger(__name__)
_SYNCHRONIZED_AT_ONCE: Final = 8
"""Ten thousand sessions that catch up after a reconnect take seconds, and the last must not time out in a queue."""


class LogsListener(Protocol):
    """What concerns all sessions of this instance. Never waits."""

    def received(self, message: ControlMessage) -> None: ...

    def replicas_unavailable(self) -> None: ...

    def leases_are_current(self) -> bool:
        """Whether the leases were renewed lately, so that this instance may still be the owner."""
        ...


class Logs(Protocol):
    """Makes the log of a session, and carries control messages to the other instances."""

    def running(self, listener: LogsListener) -> AbstractAsyncContextManager[None]: ...

    def open(self, user_id: str, fenced: Callable[[], None]) -> tuple[EventLog, Replication]:
        """`fenced` is called when another owner writes to the log. Close the replication to close both."""
        ...

    def broadcast(self, message: ControlMessage) -> None:
        """To every instance, this one included."""
        ...

    async def keep(self, user_ids: Sequence[str]) -> None:
        """These users have connections here."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether there may be other instances."""
        ...


class LocalLogs:
    """One instance alone."""

    is_shared = False

    def __init__(self, limits: Limits, now: Callable[[], datetime]) -> None:
        self._limits = limits
        self._now = now
        self._listener: LogsListener | None = None

    def running(self, listener: LogsListener) -> AbstractAsyncContextManager[None]:
        self._listener = listener
        return nullcontext()

    def open(self, user_id: str, fenced: Callable[[], None]) -> tuple[EventLog, Replication]:
        events = EventLog(self._limits, self._now)
        return events, NoReplication(events)

    def broadcast(self, message: ControlMessage) -> None:
        if self._listener is not None:
            self._listener.received(message)

    async def keep(self, user_ids: Sequence[str]) -> None:
        pass


class ReplicatedLogs:
    """Several instances around one backend."""

    is_shared = True

    def __init__(self, backend: ReplicaBackend, limits: Limits, now: Callable[[], datetime]) -> None:
        self._backend = backend
        self._limits = limits
        self._now = now
        self._replicator = Replicator(backend, limits, self._may_rewrite)
        self._shared: dict[str, SharedLog] = {}
        self._listener: LogsListener | None = None
        self._tasks = TaskSet("event logs")
        self._synchronizing = asyncio.Semaphore(_SYNCHRONIZED_AT_ONCE)

    @asynccontextmanager
    async def running(self, listener: LogsListener) -> AsyncIterator[None]:
        self._listener = listener
        async with self._backend.running(self), self._tasks:
            self._tasks.create(self._replicator.run(), name="replicator")
            yield

    def open(self, user_id: str, fenced: Callable[[], None]) -> tuple[EventLog, Replication]:
        events = EventLog(self._limits, self._now)
        shared = SharedLog(user_id, events, self._replicator, fenced=fenced, closed=lambda: self._closed(shared))
        self._shared[user_id] = shared
        return events, shared

    def broadcast(self, message: ControlMessage) -> None:
        if self._listener is not None:
            self._listener.received(message)
        self._tasks.create(self._broadcast(message))

    async def keep(self, user_ids: Sequence[str]) -> None:
        if user_ids and self._backend.is_available:
            try:
                await self._backend.keep(user_ids)
            except ReplicasUnavailableError:
                self._backend.report_unavailable()

    # -- what the backend calls ------------------------------------------------------------------------------------

    def published(self, user_id: str, published: Published) -> None:
        shared = self._shared.get(user_id)
        if shared is not None and not shared.published(published):
            self._synchronize(shared)

    def missed(self) -> None:
        for shared in tuple(self._shared.values()):
            self._synchronize(shared)
        self._replicator.availability_changed()

    def received(self, message: ControlMessage) -> None:
        if self._listener is not None:
            self._listener.received(message)

    def unavailable(self) -> None:
        log.warning("replicas.unavailable")
        self._replicator.availability_changed()
        if self._listener is not None:
            self._listener.replicas_unavailable()

    def recovered(self) -> None:
        log.info("replicas.recovered")
        self.missed()

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _may_rewrite(self) -> bool:
        return self._listener is not None and self._listener.leases_are_current()

    def _closed(self, shared: SharedLog) -> None:
        if self._shared.get(shared.user_id) is shared:
            del self._shared[shared.user_id]

    def _synchronize(self, shared: SharedLog) -> None:
        if not shared.is_owned:
            self._tasks.create(self._synchronized(shared), name=shared.user_id)

    async def _synchronized(self, shared: SharedLog) -> None:
        async with self._synchronizing:
            await self._reporting(shared.synchronize)

    async def _broadcast(self, message: ControlMessage) -> None:
        if self._backend.is_available:  # else what it is about is in the rows, and is found there
            await self._reporting(partial(self._backend.broadcast, message))

    async def _reporting(self, call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except ReplicasUnavailableError:
            self._backend.report_unavailable()
