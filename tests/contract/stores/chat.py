"""One user's side of a store, in few words: say, run, end, retry."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from server.ports import Accepted, Estimate, Lease, NewTurn, Principal, SessionStore, TurnEnd
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Allowance
from server.protocol.shapes import Json, OnBusy, Turn, TurnStatus
from tests.contract.stores.worlds import World

QUEUED, RUNNING, COMPLETED = TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.COMPLETED
FAILED, CANCELLED, UNSENT = TurnStatus.FAILED, TurnStatus.CANCELLED, TurnStatus.UNSENT


@dataclass
class Chat:
    """One user, served by owner `here` unless a test says otherwise."""

    world: World
    user_id: str
    here: str = ""
    there: str = ""

    def __post_init__(self) -> None:
        self.here, self.there = f"here-{uuid.uuid4()}", f"there-{uuid.uuid4()}"

    @property
    def store(self) -> SessionStore:
        return self.world.sessions

    async def expire(self) -> None:
        """As if the owner had not renewed its lease in time."""
        await self.world.let_leases_expire(self.user_id)

    async def say(
        self,
        text: str,
        on_busy: OnBusy = "enqueue",
        *,
        id: str | None = None,  # noqa: A002
        owner: str | None = None,
        start: bool = True,
        waiting: int = 8,
        unsent: int = 20,
        per_minute: int = 0,
        overloaded: bool = False,
    ) -> Accepted:
        """Accept a message whose id is its text unless one is given."""
        new = NewTurn.of(self.user_id, id or text, text, on_busy)
        allowance = Allowance(waiting, unsent, per_minute)
        return await self.store.accept(new, owner or self.here, start=start, allowance=allowance, overloaded=overloaded)

    async def running(self, text: str = "hello") -> tuple[Turn, Lease]:
        """A turn that runs, and the lease it runs under."""
        accepted = await self.say(text)
        assert accepted.started
        assert accepted.lease
        return accepted.turn, accepted.lease

    async def again(
        self,
        turn: Turn,
        *,
        owner: str | None = None,
        start: bool = True,
        waiting: int = 8,
        unsent: int = 20,
        per_minute: int = 0,
    ) -> Accepted:
        allowance = Allowance(waiting, unsent, per_minute)
        return await self.store.retry(self.user_id, turn.id, owner or self.here, start=start, allowance=allowance)

    async def end(self, lease: Lease, turn: Turn, status: TurnStatus, text: str = "", **more: Any) -> Turn:
        return await self.store.finish(lease, ending(turn, status, text, **more))

    async def steps(self, turn: Turn) -> tuple[Json, ...] | None:
        """The stored steps of a turn's reply; None where there is no reply."""
        user = Principal(self.user_id, "", None, datetime.now(UTC) + timedelta(hours=1))
        stored = await self.world.reads.turn(user, turn.id, with_steps=True)
        assert stored is not None
        [newest] = (await self.world.reads.history(user, 1, before=None, after=None, with_steps=True)).data
        assert newest in (stored.message, stored.user_message)
        return None if stored.message is None else stored.message.steps

    async def ended(self, text: str, status: TurnStatus, reply: str = "") -> Turn:
        """A turn that ran and ended."""
        turn, lease = await self.running(text)
        return await self.end(lease, turn, status, reply)


def ending(turn: Turn, status: TurnStatus, text: str = "", cost: Decimal | None = None, **more: object) -> TurnEnd:
    """The end of an attempt that was sent at once; one with a cost or usage that completed has an estimate."""
    has_estimate = status is TurnStatus.COMPLETED and "usage" in more
    told = {"sent_after": 0.0, "estimate": Estimate("gpt-4", cost) if has_estimate else None} | more
    return TurnEnd(turn.id, turn.attempt, status, text, **told)  # type: ignore[arg-type]


def refused(code: ErrorCode) -> "pytest.RaisesExc[PlatformError]":
    """`with refused(code):` expects a PlatformError of that code."""
    return pytest.RaisesExc(PlatformError, check=lambda error: error.code is code)


def ids(turns: tuple[Turn, ...]) -> list[str]:
    return [turn.id for turn in turns]
