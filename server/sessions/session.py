"""The session of one user: an actor that owns the user's turns while this instance holds the lease.

Whatever reads or changes the user's open turns passes through one inbox, so that no answer of the database overwrites
what a later one said. Turns are run one at a time by a worker. Both tasks exist only while there is something to do,
and the lease is held only while turns are open: whichever instance takes the next message runs it.
PostgreSQL decides everything that matters; what is held here is a view of it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import structlog

from server.ports import (
    Accepted,
    Announcement,
    ControlMessage,
    FencedError,
    Lease,
    LogMark,
    NewTurn,
    OwnedWork,
    ReplicasUnavailableError,
)
from server.protocol.codes import MOVED, TRY_AGAIN_LATER, CloseCode, ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.shapes import TurnStatus
from server.sessions.events.log import Subscription
from server.sessions.inbox import Inbox
from server.sessions.ownership import Begun, Ownership
from server.sessions.services import SessionServices
from server.sessions.views import Cancelled, Connection, Snapshot, View
from server.sessions.worker import Worker

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Session:
    """See the module. Methods are called from the one event loop."""

    __slots__ = (
        "_inbox",
        "_looking",
        "_owned",
        "_services",
        "_store",
        "_worker",
        "connections",
        "log",
        "replication",
        "used_at",
    )

    def __init__(self, user_id: str, services: SessionServices) -> None:
        self.log, self.replication = services.logs.open(user_id, self.lost)
        self.connections: list[Connection] = []
        self.used_at = services.clock()
        self._services = services
        self._store = services.attempts.store
        self._inbox = Inbox(services.spawn)
        self._owned = Ownership(user_id, services, self.log, self.replication, lambda: bool(self.connections))
        self._worker = Worker(services, self.log, self._owned, self._inbox, self.lost)
        self._owned.employ(self._worker)
        self._looking = False

    # -- what callers ask ----------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Learn what is open for this user, and take it up if nobody else does.

        Raises PlatformError(events_unavailable) where another instance owns the session and cannot be heard.
        """
        owned = self._owned
        try:
            await self.replication.open()
        except ReplicasUnavailableError as away:
            if not await self._inbox.do(owned.claim):
                raise PlatformError(ErrorCode.EVENTS_UNAVAILABLE, retry_after=2.0) from away
        if self.log.is_unused and owned.lease is None:
            owned.open.take(*await self._store.open_turns(self.user_id))
        if self.view:
            self.look_again()

    async def send(self, new: NewTurn) -> Accepted:
        store = partial(self._store.accept, new, allowance=self._services.attempts.limits.allowance())
        return await self._inbox.do(partial(self._accept, store))

    async def retry(self, turn_id: str, *, is_paced: bool = True) -> Accepted:
        """`is_paced`: the user asks for it, and it counts as a message does."""
        allowance = self._services.attempts.limits.allowance(is_paced=is_paced)
        store = partial(self._store.retry, self.user_id, turn_id, allowance=allowance)
        return await self._inbox.do(partial(self._accept, store))

    async def cancel(self, turn_id: str | None) -> Cancelled:
        return await self._inbox.do(partial(self._cancel, turn_id))

    async def while_idle(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` as the owner of a user who has nothing open: nothing begins meanwhile.

        Raises PlatformError(busy).
        """

        async def alone() -> T:
            if self._worker.has_turn or not await self._owned.claim() or self._owned.open:
                raise PlatformError(ErrorCode.BUSY)
            return await work()

        try:
            return await self._inbox.do(alone)
        finally:
            self.work()

    def look_again(self) -> None:
        """What is open may belong to nobody: claim the session and see."""
        self._owned.unsure = True
        self.work()

    def look(self, ended: str | None = None) -> None:
        """Something was changed in the rows by another instance; `ended` is a turn that it ended there."""
        if self.lease is not None and not self.is_over and not (self._looking and ended is None):
            self._looking = True
            self._services.spawn(self._look(ended))

    def check(self, work: OwnedWork) -> None:
        """Look at the rows if they say anything that is not known here."""
        heard = work.cancelled is None or self._worker.is_stopping(work.cancelled)
        if not heard or work.waiting != self.view.waiting_ids:
            self.look()

    def work(self) -> None:
        """Make sure somebody runs what is open, and that a lease without need is given back."""
        self._worker.start()

    def snapshot(self) -> Snapshot:
        running = self.log.view.running
        text = "" if running is None else self.log.reply(running.turn_id, running.attempt)
        return Snapshot(self.log.cursor, running, text, self.log.view.waiting)

    def attach(self, connection: Connection, after: EventCursor | None) -> Subscription:
        """Let a connection read the log from `after` (or from now); no await between this and `snapshot`."""
        self.connections.append(connection)
        self.used_at = self._services.clock()
        return self.log.subscribe(after, connection.wake)

    def detach(self, connection: Connection, subscription: Subscription) -> None:
        subscription.close()
        if connection in self.connections:
            self.connections.remove(connection)
        self.used_at = self._services.clock()

    def tell(self, news: Announcement) -> None:
        """Tell the connections. Every instance is asked to, and the owner does; without one, whoever becomes it."""
        if not self.replication.is_shared:
            self._append(news)
        elif self.lease is not None or self.connections:
            self._services.spawn(self._quietly(partial(self._tell, news)))

    # -- where it stands -----------------------------------------------------------------------------------------

    @property
    def user_id(self) -> str:
        return self._owned.user_id

    @property
    def lease(self) -> Lease | None:
        return self._owned.lease

    @property
    def view(self) -> View:
        """What is open, as far as this instance knows."""
        return self._owned.view

    @property
    def last_used(self) -> float:
        return max(self.used_at, self._worker.ended_at)

    @property
    def is_idle(self) -> bool:
        """Nobody would notice if it were not here."""
        return self.is_resting and not (self.connections or self.lease)

    @property
    def is_resting(self) -> bool:
        """Whether nothing is being done here that could need or bring a lease."""
        return not (self._inbox.is_busy or self._worker.task)

    @property
    def is_followed(self) -> bool:
        """Whether another instance may be the owner, whose events are read here."""
        return self.replication.is_shared and self.lease is None

    @property
    def is_over(self) -> bool:
        """Lost to another owner: whoever comes next needs a new session."""
        return self._owned.is_over

    @property
    def worker(self) -> "asyncio.Task[None] | None":
        """The task that runs turns now, for whoever waits for it at shutdown."""
        return self._worker.task

    # -- how a session ends --------------------------------------------------------------------------------------

    def disconnect(self, code: CloseCode) -> None:
        for connection in tuple(self.connections):
            connection.close(code)

    def lost(self) -> None:
        """Another owner has the user now, or should: stop everything here, change nothing, send the clients away."""
        if self.is_over:
            return
        log.warning("session.lost", user_id=self.user_id, fence=self.lease and self.lease.fence)
        self._retire(MOVED)
        self._worker.abandon()

    async def serve_alone(self) -> None:
        """The other instances cannot be heard. Serve the connections as the owner, or send them away for now."""
        if self.lease is None and not self.is_over:
            owns = bool(self.connections) and await self._inbox.do(self._owned.claim)
            self.work()
            if not owns and self.lease is None:
                self._retire(TRY_AGAIN_LATER)

    async def claim_from_silence(self) -> None:
        """No owner was heard for longer than a lease lasts. One that still renews it cannot be heard here."""
        if self.lease is None and not self.is_over and not await self._inbox.do(self._owned.claim, always=True):
            log.warning("session.owner_unheard", user_id=self.user_id)
            self._retire(TRY_AGAIN_LATER)
        self.work()

    def _retire(self, code: CloseCode) -> None:
        self._owned.is_over, self._owned.lease = True, None
        self._services.forget(self.user_id, self)
        self.disconnect(code)
        self.replication.close()

    async def aclose(self) -> tuple[Lease, LogMark] | None:
        """Stop the tasks. A running turn stays running in the database, for the next owner: the lease to release, and
        where the log stops."""
        self._owned.is_over = True
        await self._worker.aclose()
        await self._inbox.aclose()
        lease, (mark, _) = self.lease, await self._owned.prepare_release()
        self._owned.lease = None
        self.replication.close()
        return None if lease is None else (lease, mark)

    # -- commands: in the inbox, one at a time -------------------------------------------------------------------

    async def _accept(self, store: Callable[..., Awaitable[Accepted]]) -> Accepted:
        """Have a turn stored, and see to it: run it, tell of it, or leave both to the owner."""
        services, owned = self._services, self._owned
        if not owned.tells and self.view:
            await owned.claim()  # whoever runs it may be gone: then it is for us to tell how it ended
        overloaded = services.admission.overloaded
        has_place = self._nothing_open and services.may_start() and services.admission.try_acquire()
        started = False
        try:
            accepted = await self._stored(partial(store, services.owner, start=has_place, overloaded=overloaded))
            started = has_place and accepted.started and not accepted.duplicate and not self.is_over
        finally:
            if has_place and not started:
                services.admission.release()
        self.used_at = services.clock()
        if self.is_over:
            services.look_after(self.user_id)  # lost in the meantime: the turn is for the session that follows
        elif not owned.tells:
            is_news = accepted.turn.status.ended and not accepted.duplicate
            services.logs.broadcast(ControlMessage("refresh", self.user_id, accepted.turn.id if is_news else None))
        elif not accepted.duplicate:
            self._take_note(accepted, started)
        elif not (accepted.turn.status.ended or owned.open.knows(accepted.turn)):
            owned.unsure = True  # begun elsewhere, or before an answer was lost
            await owned.look()
        self.work()
        return accepted

    async def _stored(self, store: Callable[..., Awaitable[Accepted]]) -> Accepted:
        services, owned = self._services, self._owned
        try:
            accepted = await store()
            owned.check_acceptance(accepted.lease)
            if accepted.lease is not None and await owned.gain(accepted.lease, accepted.mark, but_for=accepted.turn.id):
                # What it waits for may be a turn that its owner left running, which is not ours to send.
                owned.unsure = owned.unsure or not accepted.started
            return accepted
        except FencedError as error:
            self.lost()
            services.look_after(self.user_id)
            raise PlatformError(ErrorCode.EVENTS_UNAVAILABLE, retry_after=1.0) from error
        except PlatformError as error:
            self._doubt(error)
            if error.code is ErrorCode.OVERLOADED:
                raise services.admission.refusal() from error
            raise

    @property
    def _nothing_open(self) -> bool:
        return self._worker.is_free and not (self._owned.unsure or self.view)

    def _doubt(self, error: PlatformError) -> None:
        """The database did not answer: what it was asked to do may be done all the same."""
        if error.code is ErrorCode.SUPABASE_UNAVAILABLE:
            self.look_again()

    def _take_note(self, accepted: Accepted, started: bool) -> None:
        for turn in accepted.cancelled:
            self._owned.open.ended(turn)
        if accepted.interrupted is not None:
            self._worker.stop(accepted.interrupted)
        if started:
            self._worker.begin(Begun(accepted.turn, accepted.forgotten))
        elif accepted.turn.status.ended:
            self._owned.open.ended(accepted.turn)
        else:
            self._owned.open.queued(accepted.turn)

    async def _cancel(self, turn_id: str | None) -> Cancelled:
        try:
            turn = await self._store.request_cancel(self.user_id, turn_id)
        except PlatformError as error:
            self._doubt(error)
            raise
        was_open = turn.status is TurnStatus.RUNNING or turn.id in self.view.waiting_ids
        if not self._owned.tells and (was_open or turn.status is TurnStatus.CANCELLED):
            # Also where it had ended before: its owner may not have seen it yet, and then nobody was told.
            ended = turn.id if turn.status.ended else None
            self._services.logs.broadcast(ControlMessage("refresh", self.user_id, ended))
            if ended:
                self.look_again()  # should nobody own it any more, it is for us to tell
        elif turn.status is TurnStatus.RUNNING:
            self._worker.stop(turn)
        elif was_open:
            self._owned.open.ended(turn)
        return Cancelled(turn, duplicate=not was_open)

    async def _tell(self, news: Announcement) -> None:
        if self._owned.tells or await self._owned.claim():
            if not self.log.has_published(news):
                self._append(news)
            self.work()

    def _append(self, news: Announcement) -> None:
        self.log.append(news.type, news.turn_id, news.attempt, **news.fields)

    async def _look(self, ended: str | None) -> None:
        self._looking = False
        await self._quietly(self._owned.look)
        if ended is not None:
            await self._quietly(partial(self._owned.learn_end, ended))
        self.work()

    async def _quietly(self, command: Callable[[], Awaitable[Any]]) -> None:
        """For what nobody waits for: the database being away is noted where it is asked next."""
        try:
            await self._inbox.do(command, always=True)
        except PlatformError as error:
            log.warning("session.command_failed", user_id=self.user_id, code=error.code)
        except FencedError:
            self.lost()
