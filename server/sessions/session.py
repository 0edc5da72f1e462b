"""The session of one user: an actor that owns the user's turns while this instance holds the lease.

Whatever reads or changes the user's open turns is a command of one mailbox, so that no answer of the database
overwrites what a later one said. `state.py` decides what comes next, `ownership.py` carries it out. Tasks exist only
while there is something to do, and the lease is held only while turns are open: whichever instance takes the next
message runs it. PostgreSQL decides everything that matters; what is held here is a view of it.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from server.ports import (
    Accepted,
    Announcement,
    FencedError,
    Lease,
    LogMark,
    NewTurn,
    OwnedWork,
    ReplicasUnavailableError,
)
from server.protocol.codes import TRY_AGAIN_LATER, CloseCode, ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.sessions.acceptance import Acceptance
from server.sessions.context import SessionContext
from server.sessions.events.log import Subscription
from server.sessions.events.snapshot import Cancelled, Connection, Snapshot, View
from server.sessions.events.steps import steps_of, text_of
from server.sessions.ownership import Ownership
from server.sessions.state import BUSY, Event, Phase
from server.sessions.store_retry import retry_while_unavailable

log = structlog.get_logger(__name__)
T = TypeVar("T")
_WANTED_SECONDS: Final = 5.0


class Session:
    """See the module. Methods are called from the one event loop."""

    __slots__ = (
        "_acceptance",
        "_context",
        "_is_refreshing",
        "_mailbox",
        "_ownership",
        "_store",
        "_used_at",
        "connections",
        "life",
        "log",
        "replication",
        "user_id",
    )

    def __init__(self, user_id: str, context: SessionContext) -> None:
        self.user_id = user_id
        self.connections: list[Connection] = []
        self._context = context
        self._store = context.attempts.store
        self._used_at = context.clock()
        self._ownership = ownership = Ownership(user_id, context, self)
        self._acceptance = Acceptance(ownership, context)
        self.life = ownership.life
        self._mailbox = ownership.life.mailbox
        self.log, self.replication = ownership.log, ownership.replication
        self._is_refreshing = False

    # -- what callers ask ----------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what is open for this user, and claim it if no other instance owns it.

        Raises PlatformError(events_unavailable) where another instance owns the session and cannot be followed.
        """
        try:
            await self.replication.open()
        except ReplicasUnavailableError:
            await self._claim_or_refuse()
        if self.log.is_unused and self.lease is None:
            running, queued = await self._store.open_turns(self.user_id)
            if self.log.is_unused:  # else its owner has published meanwhile what is newer than these rows
                self._ownership.open_turns.begin(running, queued)
            if not self.replication.is_available:
                await self._claim_or_refuse()
        if self.view:
            self.mark_outdated()

    async def _claim_or_refuse(self) -> None:
        self.used()
        if not await self._mailbox.do(self._ownership.claim):
            raise PlatformError(ErrorCode.EVENTS_UNAVAILABLE, retry_after=2.0)

    async def send(self, new: NewTurn) -> Accepted:
        write = partial(self._store.accept, new, allowance=self._context.attempts.limits.allowance())
        return await self._mailbox.do(partial(self._accept, write))

    async def retry(self, turn_id: str, *, is_paced: bool = True) -> Accepted:
        """`is_paced`: the user asks for it, and it counts as a message does."""
        allowance = self._context.attempts.limits.allowance(is_paced=is_paced)
        write = partial(self._store.retry, self.user_id, turn_id, allowance=allowance)
        return await self._mailbox.do(partial(self._accept, write))

    async def _accept(self, write: Callable[..., Awaitable[Accepted]]) -> Accepted:
        accepted = await self._acceptance.accept(write)
        self.used()
        return accepted

    async def cancel(self, turn_id: str | None) -> Cancelled:
        return await self._mailbox.do(partial(self._acceptance.cancel, turn_id))

    async def while_idle(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` as the owner of a user who has nothing open: nothing begins meanwhile.

        Raises PlatformError(busy).
        """

        async def alone() -> T:
            if self.life.phase in BUSY or not await self._ownership.claim() or self._ownership.open_turns:
                raise PlatformError(ErrorCode.BUSY)
            return await work()

        return await self._mailbox.do(alone)

    def snapshot(self) -> Snapshot:
        running = self.log.view.running
        reply = "" if running is None else self.log.reply(running.turn_id, running.attempt)
        return Snapshot(self.log.cursor, running, text_of(reply), self.log.view.waiting, steps_of(reply))

    def attach(self, connection: Connection, after: EventCursor | None) -> Subscription:
        """Let a connection read the log from `after` (or from now); no await between this and `snapshot`."""
        self.connections.append(connection)
        self.used()
        return self.log.subscribe(after, connection.deliver)

    def used(self) -> None:
        """It is not idle yet."""
        self._used_at = self._context.clock()

    def detach(self, connection: Connection, subscription: Subscription) -> None:
        subscription.close()
        if connection in self.connections:
            self.connections.remove(connection)
        self.used()

    def announce(self, event: Announcement) -> None:
        """Publish it. Every instance is asked to, and the owner does; without one, the next to claim the session."""
        if not self.replication.is_shared:
            self._append(event)
        elif self.lease is not None or self.connections:
            self._context.spawn(self._quietly(partial(self._announce, event)))

    # -- what the instance asks ----------------------------------------------------------------------------------

    def mark_outdated(self) -> None:
        """Open turns may have no owner, or an answer of the database was lost: claim the session and compare."""
        self.life.move(Event.OUTDATED)
        self.settle()

    def refresh(self, ended: str | None = None) -> None:
        """Another instance has changed the rows; `ended` is a turn that it ended there."""
        if self.lease is not None and not self.is_over and not (self._is_refreshing and ended is None):
            self._is_refreshing = True
            self._context.spawn(self._refresh(ended))

    def refresh_if_changed(self, work: OwnedWork) -> None:
        """Read the rows if they contain anything that is not known here."""
        is_known = work.cancelled is None or self._ownership.runner.is_stopping(work.cancelled)
        if not is_known or work.waiting != self.view.waiting_ids:
            self.refresh()

    def settle(self) -> None:
        """Do what comes next, if anything does. Called often, for every session."""
        is_at_rest = self.life.phase is Phase.FOLLOWING and not self.life.state.outdated and self.lease is None
        if not is_at_rest:
            self.life.settle()

    async def claim_or_leave(self) -> None:
        """Its events do not reach other instances, or those of its owner this one: claim the session if it has
        connections. If that is refused, close them."""
        if self.lease is not None or self.is_over:
            return
        try:
            if bool(self.connections) and await self._mailbox.do(self._ownership.claim, always=True):
                return
        except FencedError:
            self.lost()
        else:
            log.info("session.owner_unheard", user_id=self.user_id, connections=len(self.connections))
            self._ownership.leave(TRY_AGAIN_LATER)

    # -- where it stands -----------------------------------------------------------------------------------------

    @property
    def lease(self) -> Lease | None:
        return self._ownership.lease

    @property
    def view(self) -> View:
        """What is open, as far as this instance knows."""
        return self._ownership.view

    @property
    def last_used(self) -> float:
        return max(self._used_at, self._ownership.runner.ended_at)

    @property
    def is_idle(self) -> bool:
        """Whether it can be dropped: no connection, no lease, nothing to do."""
        return self.is_quiet and not (self.connections or self.lease)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being done here that could need or bring a lease."""
        return self.life.is_quiet

    @property
    def is_followed(self) -> bool:
        """Whether another instance may be the owner, whose events are read here."""
        return self.replication.is_shared and self.lease is None

    @property
    def is_over(self) -> bool:
        """Lost to another owner, or closed: the next caller needs a new session."""
        return self._ownership.is_over

    @property
    def is_wanted(self) -> bool:
        """Whether it has connections, or was opened just now for one."""
        return bool(self.connections) or self._context.clock() - self._used_at < _WANTED_SECONDS

    async def quiet(self) -> None:
        """Return when nothing is being done here, and the lease was released, or is kept with nothing to do."""
        await self.life.quiet()

    # -- the end -------------------------------------------------------------------------------------------------

    def lost(self) -> None:
        """Another owner has the session."""
        self._ownership.lost()

    def session_over(self, code: CloseCode) -> None:
        """It is lost or closed on this instance: close the connections."""
        self._context.forget(self.user_id, self)
        self.disconnect(code)

    def disconnect(self, code: CloseCode) -> None:
        for connection in tuple(self.connections):
            connection.close(code)

    async def aclose(self) -> tuple[Lease, LogMark] | None:
        """Stop the tasks. A running turn stays running in the database, for the next owner: the lease to release, and
        where the log stops."""
        return await self._ownership.aclose()

    # -- commands, in the mailbox ----------------------------------------------------------------------------------

    async def _announce(self, event: Announcement) -> None:
        if (self._ownership.publishes or await self._ownership.claim()) and not self.log.has_published(event):
            self._append(event)

    def _append(self, event: Announcement) -> None:
        self.log.append(event.type, event.turn_id, event.attempt, **event.fields)

    async def _refresh(self, ended: str | None) -> None:
        self._is_refreshing = False

        async def reconcile() -> None:
            if await self._ownership.reconcile():
                self.life.move(Event.OUTDATED)
            if ended is not None and self._ownership.publishes:
                await self._ownership.open_turns.publish_end_of(ended)

        await self._quietly(reconcile)

    async def _quietly(self, command: Callable[[], Awaitable[Any]]) -> None:
        """For what no caller waits for; repeated while the database is unavailable."""

        async def unless_over() -> None:
            if not self.is_over:
                await command()

        try:
            await retry_while_unavailable(partial(self._mailbox.do, unless_over, always=True), self.user_id)
        except PlatformError as error:
            log.warning("session.command_failed", user_id=self.user_id, code=error.code)
        except FencedError:
            self.lost()
