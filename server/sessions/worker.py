"""The worker of a session runs what is open, one turn at a time. Its task exists only while there is work."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog

from server.aio import cancel_and_wait
from server.ports import FencedError, TurnEnd
from server.protocol.shapes import Turn
from server.sessions.attempt import Attempt
from server.sessions.conclusion import conclude
from server.sessions.events.log import EventLog
from server.sessions.inbox import Inbox
from server.sessions.ownership import Begun, Ownership
from server.sessions.patience import patiently
from server.sessions.services import SessionServices

log = structlog.get_logger(__name__)


class Worker:
    """`lost` is told when the session has to be given up."""

    __slots__ = (
        "_attempt",
        "_events",
        "_has_place",
        "_inbox",
        "_lost",
        "_owned",
        "_services",
        "_to_stop",
        "begun",
        "ended_at",
        "is_resting",
        "task",
    )

    def __init__(
        self,
        services: SessionServices,
        events: EventLog,
        owned: Ownership,
        inbox: Inbox,
        lost: Callable[[], None],
    ) -> None:
        self.task: asyncio.Task[None] | None = None
        self.begun: Begun | None = None
        self.is_resting = False  # it has nothing to do but to give the lease back
        self.ended_at = services.clock()
        self._services = services
        self._events = events
        self._owned = owned
        self._inbox = inbox
        self._lost = lost
        self._attempt: Attempt | None = None
        self._has_place = False
        self._to_stop: frozenset[tuple[str, int]] = frozenset()

    @property
    def has_turn(self) -> bool:
        return self._attempt is not None or self.begun is not None

    @property
    def is_free(self) -> bool:
        """Whether a turn that is accepted now could begin at once."""
        return self.task is None or self.is_resting

    def start(self) -> None:
        """Make sure somebody runs what is open, and that a lease without need is given back."""
        owned = self._owned
        something = owned.unsure or (owned.lease is not None and (owned.open or not owned.is_kept))
        if something and self.task is None and not owned.is_over and self._services.may_start():
            self.task = self._services.spawn(self._work())

    def begin(self, begun: Begun) -> None:
        """Run a turn that was accepted with a place of its own."""
        self._has_place = True
        self._owned.begin(begun)

    def stop(self, turn: Turn) -> None:
        """The user wants the running turn to end."""
        if self._attempt is not None and self._attempt.turn.id == turn.id:
            self._attempt.stop()
        else:
            self._to_stop |= {(turn.id, turn.attempt)}  # it is just being started or taken over
            self.start()

    def is_stopping(self, turn_id: str) -> bool:
        if self._attempt is not None and self._attempt.turn.id == turn_id:
            return self._attempt.is_stopping
        return any(turn_id == stopped for stopped, _ in self._to_stop)

    def abandon(self) -> None:
        """Stop at once. What runs stays running in the database, for the next owner."""
        if self.task is not None:
            self.task.cancel()
        else:
            self._give_place_back()

    async def aclose(self) -> None:
        await cancel_and_wait(self.task)

    # -- the task ------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        try:
            while True:
                await self._run_what_is_open()
                self.is_resting = True
                rested = await self._ask(self._owned.rest)
                self.is_resting = False
                if rested or not self._services.may_start():
                    return
        except FencedError:
            self.task = None
            self._lost()
        except Exception:
            if not self._owned.is_over:
                await self._rest_after_crash()
            self.task = None
            self._lost()  # what is open is in the database: whoever claims the session next goes on with it
        finally:
            self.task = self.begun = None
            self.is_resting = False
            self._give_place_back()
            self.ended_at = self._services.clock()

    async def _rest_after_crash(self) -> None:
        """Keep the lease, so that no other instance crashes in the meantime, and nothing else."""
        rest = self._services.crashes.crashed(self._owned.user_id)
        log.exception("session.worker_failed", user_id=self._owned.user_id, retry_in=rest)
        self.begun, self.is_resting = None, False
        self._give_place_back()
        await asyncio.sleep(rest)

    async def _run_what_is_open(self) -> None:
        owned = self._owned
        while self._services.may_start():
            if (owned.unsure or (owned.lease is None and self.begun is None)) and not await self._claim():
                return
            begun = self.begun or await self._start_next()
            if begun is not None:
                await self._run(begun)
            elif not owned.unsure:
                return

    async def _claim(self) -> bool:
        """Take the session over. False: nothing is open any more, or somebody else runs it and tells of it.

        Where nobody else can be heard, wait for their lease to end.
        """
        while self._services.may_start():
            if await self._ask(self._owned.claim):
                return True
            if self._owned.is_shared:
                self._owned.unsure = False
                return False
            await asyncio.sleep(self._services.claim_pause)
            if not await self._ask(self._owned.look):
                return False
        return False

    async def _start_next(self) -> Begun | None:
        if not self._owned.view.waiting:
            return None
        await self._services.admission.acquire()
        self._has_place = True
        try:
            if self._services.may_start():
                await self._ask(self._owned.start)
        finally:
            if self.begun is None:
                self._give_place_back()
        return self.begun

    async def _ask(self, command: Callable[[], Awaitable[Any]]) -> Any:
        """Have a command carried out, however long the database is away."""
        return await patiently(partial(self._inbox.do, command, always=True), self._owned.user_id)

    def _give_place_back(self, seconds: float | None = None) -> None:
        if self._has_place:
            self._has_place = False
            self._services.admission.release(seconds)

    async def _run(self, begun: Begun) -> None:
        turn, began = begun.turn, self._services.clock()
        lease = self._owned.lease
        assert lease is not None
        attempt = Attempt(
            self._services.attempts,
            self._events,
            lease,
            turn,
            begun.forgotten,
            may_send=self._services.is_current,
            spent=begun.spent,
        )
        self._attempt, self.begun = attempt, None
        if turn.cancel_requested_at is not None or (turn.id, turn.attempt) in self._to_stop:
            attempt.stop()
        try:
            stored = await conclude(attempt, self._finish)
        finally:
            self._attempt = None
            self._give_place_back(self._services.clock() - began)
        self._services.crashes.recovered(turn.user_id)
        self._to_stop -= {(turn.id, turn.attempt)}
        self._owned.open.ended(stored)
        log.info(
            "turn.ended",
            user_id=turn.user_id,
            turn_id=turn.id,
            attempt=turn.attempt,
            status=stored.status,
            error=stored.error and stored.error.code,
            run_id=attempt.reply.run_id,
            duration_ms=round((self._services.clock() - began) * 1000),
        )

    async def _finish(self, end: TurnEnd) -> Turn:
        lease = self._owned.lease  # the newest: it may have run out and been taken again while the turn ran
        assert lease is not None
        return await self._services.attempts.store.finish(lease, end)
