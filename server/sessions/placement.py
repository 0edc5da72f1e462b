"""Where the logs of sessions live: in this process alone, or with a relay through which every instance reads them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import datetime
from typing import Any, Protocol

import structlog

from server.aio import cancel_and_wait
from server.ports import EventRelay, Notice, Published, RelayAwayError
from server.protocol.limits import Limits
from server.sessions.log import EventLog
from server.sessions.outbox import Outbox
from server.sessions.relayed_log import RelayedLog

log = structlog.get_logger(__name__)


class Listener(Protocol):
    """Who is told what concerns all sessions of this instance. Never waits."""

    def noticed(self, notice: Notice) -> None: ...

    def relay_away(self) -> None: ...


class Placement(Protocol):
    """Makes the log of a session, and carries notices to the instances that may hold its user's connections."""

    @property
    def is_shared(self) -> bool:
        """Whether other instances read the same logs."""
        ...

    def running(self, listener: Listener) -> AbstractAsyncContextManager[None]: ...

    def log(self, user_id: str) -> EventLog: ...

    def announce(self, notice: Notice) -> None:
        """Tell every instance, this one included."""
        ...

    async def keep(self, user_ids: Sequence[str]) -> None:
        """These users have connections here."""
        ...


class LocalPlacement:
    """One instance: what it does not know, nobody does."""

    is_shared = False

    def __init__(self, limits: Limits, now: Callable[[], datetime]) -> None:
        self._limits = limits
        self._now = now
        self._listener: Listener | None = None

    def running(self, listener: Listener) -> AbstractAsyncContextManager[None]:
        self._listener = listener
        return nullcontext()

    def log(self, user_id: str) -> EventLog:
        return EventLog(self._limits, self._now)

    def announce(self, notice: Notice) -> None:
        if self._listener is not None:
            self._listener.noticed(notice)

    async def keep(self, user_ids: Sequence[str]) -> None:
        pass


class SharedPlacement:
    """Several instances around one relay."""

    is_shared = True

    def __init__(self, relay: EventRelay, limits: Limits, now: Callable[[], datetime]) -> None:
        self._relay = relay
        self._limits = limits
        self._now = now
        self._outbox = Outbox(relay)
        self._logs: dict[str, RelayedLog] = {}
        self._listener: Listener | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self, listener: Listener) -> AsyncIterator[None]:
        self._listener = listener
        async with self._relay.running(self):
            sending = asyncio.create_task(self._outbox.run())
            try:
                yield
            finally:
                await cancel_and_wait(sending, *self._tasks)

    def log(self, user_id: str) -> EventLog:
        made = self._logs[user_id] = RelayedLog(user_id, self._relay, self._outbox, self._limits, self._now)
        made.on_closed = self._closed
        self._outbox.enter(made)
        return made

    def announce(self, notice: Notice) -> None:
        if self._listener is not None:
            self._listener.noticed(notice)
        self._spawn(self._notify(notice))

    async def keep(self, user_ids: Sequence[str]) -> None:
        if user_ids and not self._relay.is_away:
            try:
                await self._relay.keep(user_ids)
            except RelayAwayError:
                self._relay.report_away()

    # -- what the relay tells ----------------------------------------------------------------------------------------

    def published(self, user_id: str, news: Published) -> None:
        one = self._logs.get(user_id)
        if one is not None and not one.published(news):
            self._spawn(self._synchronize(one))

    def begun(self, user_id: str) -> None:
        one = self._logs.get(user_id)
        if one is not None and one.lease is None:
            self._spawn(self._synchronize(one))

    def missed(self) -> None:
        for user_id in tuple(self._logs):
            self.begun(user_id)

    def noticed(self, notice: Notice) -> None:
        if self._listener is not None:
            self._listener.noticed(notice)

    def away(self) -> None:
        log.warning("relay.away")
        self._outbox.look()
        if self._listener is not None:
            self._listener.relay_away()

    def back(self) -> None:
        log.info("relay.back")
        self._outbox.look()
        self.missed()

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _closed(self, one: RelayedLog) -> None:
        if self._logs.get(one.user_id) is one:
            del self._logs[one.user_id]

    async def _synchronize(self, one: RelayedLog) -> None:
        try:
            await one.synchronize()
        except RelayAwayError:
            self._relay.report_away()

    async def _notify(self, notice: Notice) -> None:
        if self._relay.is_away:
            return  # what it is about is in the rows, and is found there
        try:
            await self._relay.notify(notice)
        except RelayAwayError:
            self._relay.report_away()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
