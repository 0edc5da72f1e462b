"""The fixture of the billing tests: the stores and the gateway in memory, and a clock that tests advance."""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

from server.billing.budgets import Budgets
from server.billing.reconciler import Reconciler
from server.ports import Announcement, Estimate, ModelCall, NewTurn, TurnEnd
from server.ports.schedule import FIRST_SEARCH
from server.protocol.limits import Allowance
from server.protocol.shapes import Turn, TurnStatus, Usage
from tests.fakes.billing import FakeBilling
from tests.fakes.database import MemoryDatabase
from tests.fakes.ledger import FakeLedger
from tests.fakes.store import FakeSessionStore

_ids = count()


@dataclass(slots=True)
class BillingWorld:
    """The reconciler of one instance with its services; `announced` are the announcements by user."""

    time: datetime = field(default_factory=lambda: datetime(2026, 11, 27, 12, tzinfo=UTC))
    database: MemoryDatabase = field(init=False)
    billing: FakeBilling = field(default_factory=FakeBilling)
    ledger: FakeLedger = field(init=False)
    store: FakeSessionStore = field(init=False)
    budgets: Budgets = field(init=False)
    reconciler: Reconciler = field(init=False)
    announced: list[tuple[str, Announcement]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = MemoryDatabase(clock=self.now)
        self.ledger, self.store = FakeLedger(self.database), FakeSessionStore(self.database)
        self.budgets = Budgets(self.ledger, self.billing, clock=self._seconds)
        self.reconciler = Reconciler(
            self.ledger, self.billing, self.budgets, lambda *announced: self.announced.append(announced), self.now
        )

    def now(self) -> datetime:
        return self.time

    def _seconds(self) -> float:
        return self.time.timestamp()

    def wait(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def user(self) -> str:
        """A user with a key, whose hash is the user's id."""
        user_id = self.database.sign_up()
        self.database.profile(user_id)
        self.database.key_hashes[_key(user_id)] = user_id
        return user_id

    async def turn(self, user_id: str, *calls: ModelCall, status: TurnStatus = TurnStatus.COMPLETED) -> Turn:
        """A turn of four seconds that makes these calls; a completed one is estimated at a dollar."""
        text = f"message {next(_ids)}"
        new = NewTurn.of(user_id, text, text, "enqueue")
        accepted = await self.store.accept(new, "here", start=True, allowance=Allowance())
        assert accepted.lease
        self.wait(4)
        if status is TurnStatus.CANCELLED:
            await self.store.request_cancel(user_id, accepted.turn.id)
        prompt, completion = sum(one.prompt_tokens for one in calls), sum(one.completion_tokens for one in calls)
        usage = Usage(prompt, completion, prompt + completion, model_calls=len(calls))
        is_done = status is TurnStatus.COMPLETED
        end = TurnEnd(
            accepted.turn.id,
            1,
            status,  # type: ignore[arg-type] # one that has ended
            "ok",
            usage=usage if is_done else None,
            estimate=Estimate("gpt-4", Decimal(1)) if is_done else None,
            sent_after=0.1,
        )
        self.billing.calls += calls
        ended = await self.store.finish(accepted.lease, end)
        await self.store.release(accepted.lease)
        self.wait(FIRST_SEARCH.total_seconds())
        return ended

    def call(self, user_id: str, cost: str = "0.5", **more: Any) -> ModelCall:
        """A call that begins a second from now, when the next turn has been sent, and takes two."""
        began = self.time + timedelta(seconds=1 + self.billing.clock_ahead)
        made = ModelCall(
            f"call-{next(_ids)}",
            _key(user_id),
            "gpt-4",
            "success",
            10,
            5,
            0,
            0,
            Decimal(cost),
            None,
            began,
            began + timedelta(seconds=2),
        )
        return replace(made, **more)

    async def stored(self, turn: Turn) -> Turn:
        found = await self.store.turn(turn.user_id, turn.id)
        assert found is not None
        return found


def _key(user_id: str) -> str:
    return hashlib.sha256(user_id.encode()).hexdigest()
