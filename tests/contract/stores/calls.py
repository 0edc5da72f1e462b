"""Model calls as the gateway would have logged them."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from server.ports import Findings, LedgerEntry, ModelCall, SettledAttempt
from server.protocol.shapes import Turn


def call(cost: str = "0.06411", prompt: int = 10, completion: int = 5, **more: Any) -> ModelCall:
    """A call that succeeded just now. `cost` in US dollars."""
    now = datetime.now(UTC)
    made = ModelCall(
        request_id=f"call-{uuid.uuid4()}",
        key_hash="0" * 64,
        model="gpt-4",
        outcome="success",
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=0,
        reasoning_tokens=0,
        cost=Decimal(cost),
        price=None,
        started_at=now,
        ended_at=now,
    )
    return replace(made, **more)


def charged(turn: Turn, *calls: ModelCall, flag: str | None = None) -> Findings:
    """These calls are all there are of the turn's attempt."""
    entries = tuple(LedgerEntry(one, turn.id, turn.attempt) for one in calls)
    return Findings(entries, (SettledAttempt(turn.id, turn.attempt, flag),))
