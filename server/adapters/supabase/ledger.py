"""Ledger on the service-role SQL functions: each change is one call, one transaction, safe to repeat."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.outcomes import granted
from server.adapters.supabase.rows import Row, money_or_none, time_of, time_or_none
from server.ports import (
    Budget,
    BudgetWarning,
    Deviation,
    Findings,
    KnownCall,
    LedgerChanges,
    LedgerEntry,
    LedgerRow,
    Search,
    SentAttempt,
    TurnCharge,
)
from server.protocol.shapes import TurnStatus, Usage, exact_money

_PAGE = 1000


class SupabaseLedger:
    """Implements `server.ports.Ledger`. All rules are in `supabase/migrations`."""

    def __init__(self, client: SupabaseClient) -> None:
        self._client = client

    async def due(self, limit: int) -> list[Search]:
        answer = await self._client.call("claim_settlements", limit=limit)
        return [_search_of(work, time_of(answer["now"])) for work in answer["work"]]

    async def search(self, user_id: str, since: datetime) -> Search:
        answer = await self._client.call("search_settlement", user_id=user_id, since=since.isoformat())
        return _search_of(answer["work"], time_of(answer["now"]))

    async def enter(self, user_id: str, findings: Findings) -> LedgerChanges:
        found = {
            "calls": [_entry_row(entry) for entry in findings.entries],
            "settled": [asdict(settled) for settled in findings.settled],
        }
        answer = granted(await self._client.call("settle_usage", user_id=user_id, found=json.dumps(found)), user_id)
        warning = answer["warning"]
        return LedgerChanges(
            turns=tuple(_charge_of(row) for row in answer["turns"]),
            warning=warning and BudgetWarning(Decimal(warning["spent"]), Decimal(warning["limit"]), warning["level"]),
        )

    async def store_budget(self, user_id: str, budget: Budget) -> bool:
        answer = await self._client.call(
            "remember_budget",
            user_id=user_id,
            limit=exact_money(budget.limit),
            period=budget.period,
            resets_at=budget.resets_at and budget.resets_at.isoformat(),
        )
        return bool(granted(answer, user_id)["over_budget"])

    async def rows(self, user_id: str, first: date, last: date) -> list[LedgerRow]:
        found: list[LedgerRow] = []
        while True:
            page = await self._client.call(
                "ledger_rows",
                user_id=user_id,
                first=first.isoformat(),
                last=last.isoformat(),
                skip=len(found),
                limit=_PAGE,
            )
            found += map(_row_of, page)
            if len(page) < _PAGE:
                return found

    async def key_hashes(self, user_id: str) -> list[str]:
        hashes: list[str] = await self._client.call("model_key_hashes", user_id=user_id)
        return hashes

    async def deviations(self, user_id: str) -> list[Deviation]:
        return [Deviation(**row) for row in await self._client.call("ledger_deviations", user_id=user_id)]

    async def users(self, after: str | None, limit: int) -> Sequence[str]:
        users: list[str] = await self._client.call("ledger_users", after=after, limit=limit)
        return users


def _search_of(work: Row, now: datetime) -> Search:
    return Search(
        user_id=work["user_id"],
        since=time_of(work["since"]),
        now=now,
        key_hashes=tuple(work["key_hashes"]),
        attempts=tuple(_attempt_of(row) for row in work["attempts"]),
        known={
            request_id: KnownCall(row["turn_id"], row["attempt"], Decimal(row["cost"]))
            for request_id, row in work["known"].items()
        },
    )


def _attempt_of(row: Row) -> SentAttempt:
    outcome, usage = row["outcome"], row["usage"]
    return SentAttempt(
        turn_id=row["turn_id"],
        attempt=row["attempt"],
        sent_at=time_of(row["sent_at"]),
        ended_at=time_or_none(row["ended_at"]),
        outcome=None if outcome is None else TurnStatus(outcome),
        usage=None if usage is None else Usage(**usage),
        is_settled=row["is_settled"],
        stopped_at=time_or_none(row["stopped_at"]),
    )


def _entry_row(entry: LedgerEntry) -> dict[str, Any]:
    call = entry.call
    price = call.price and {part: exact_money(value) for part, value in asdict(call.price).items()}
    return {
        "turn_id": entry.turn_id,
        "attempt": entry.attempt,
        "request_id": call.request_id,
        "outcome": call.outcome,
        "model": call.model,
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "cached_tokens": call.cached_tokens,
        "reasoning_tokens": call.reasoning_tokens,
        "price": price,
        "cost": exact_money(call.cost),
        "started_at": call.started_at.isoformat(),
        "ended_at": call.ended_at.isoformat(),
        "flag": entry.flag,
    }


def _charge_of(row: Row) -> TurnCharge:
    usage = row["usage"]
    return TurnCharge(
        turn_id=row["turn_id"],
        attempt=row["attempt"],
        usage=None if usage is None else Usage(**usage),
        cost=money_or_none(row["cost"]),
        cost_status=row["cost_status"],
    )


def _row_of(row: Row) -> LedgerRow:
    return LedgerRow(**row | {"cost": money_or_none(row["cost"]), "started_at": time_of(row["started_at"])})
