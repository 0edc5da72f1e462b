"""SessionStore on the service-role SQL functions: each method is one call, one transaction, safe to repeat."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.outcomes import granted
from server.adapters.supabase.rows import forgotten_of, is_uuid, turn_of, turn_or_none, turns_of
from server.ports import Accepted, Claim, Lease, LogMark, NewTurn, OwnedWork, Started, TurnEnd
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Allowance
from server.protocol.shapes import Turn, exact_money


def _lease(lease: Lease) -> dict[str, Any]:
    return {"user_id": lease.user_id, "owner": lease.owner, "fence": lease.fence}


def _limits(allowance: Allowance) -> dict[str, Any]:
    return {"max_waiting": allowance.waiting, "max_unsent": allowance.unsent, "per_minute": allowance.per_minute}


def _mark(answer: dict[str, Any]) -> LogMark | None:
    mark = answer.get("mark")
    return None if mark is None else LogMark(mark["epoch"], mark["head"])


class SupabaseSessionStore:
    """Implements `server.ports.SessionStore`. All rules are in `supabase/migrations`."""

    def __init__(self, client: SupabaseClient) -> None:
        self._client = client

    async def claim(self, user_id: str, owner: str) -> Claim | None:
        answer = granted(await self._client.call("claim_session", user_id=user_id, owner=owner), user_id)
        if answer["outcome"] == "held":
            return None
        return Claim(
            lease=Lease(user_id, owner, answer["fence"]),
            running=turn_or_none(answer["running"]),
            forgotten=forgotten_of(answer["forgotten"]),
            queued=turns_of(answer["queued"]),
            running_for=float(answer["running_for"]),
            mark=_mark(answer),
        )

    async def renew(self, owner: str) -> dict[str, int]:
        """See the port. Vital: failed calls of some users must not make the leases of all others expire."""
        held: dict[str, int] = await self._client.call("renew_sessions", vital=True, owner=owner)
        return held

    async def owned_work(self, owner: str) -> list[OwnedWork]:
        rows = await self._client.call("owned_work", owner=owner)
        return [OwnedWork(row["user_id"], frozenset(row["waiting"]), row["cancelled"]) for row in rows]

    async def release(self, lease: Lease, mark: LogMark | None = None, *, unless_open: bool = False) -> bool:
        answer = await self._client.call(
            "release_session",
            **_lease(lease),
            unless_open=unless_open,
            log_epoch=None if mark is None else mark.epoch,
            log_head=None if mark is None else mark.head,
        )
        return bool(answer["outcome"] != "open")

    async def unowned_work(self, limit: int) -> list[str]:
        users: list[str] = await self._client.call("unowned_work", limit=limit)
        return users

    async def accept(
        self, new: NewTurn, owner: str, *, start: bool, allowance: Allowance, overloaded: bool = False
    ) -> Accepted:
        limits = _limits(allowance)
        answer = await self._client.call(
            "accept_turn", **asdict(new), owner=owner, start=start, overloaded=overloaded, **limits
        )
        return self._accepted(answer, new.user_id, owner)

    async def retry(
        self, user_id: str, turn_id: str, owner: str, *, start: bool, allowance: Allowance, overloaded: bool = False
    ) -> Accepted:
        if not is_uuid(turn_id):
            raise PlatformError(ErrorCode.NOT_FOUND)
        limits = _limits(allowance)
        answer = await self._client.call(
            "retry_turn", user_id=user_id, turn_id=turn_id, owner=owner, start=start, overloaded=overloaded, **limits
        )
        return self._accepted(answer, user_id, owner)

    def _accepted(self, answer: dict[str, Any], user_id: str, owner: str) -> Accepted:
        granted(answer, user_id)
        fence = answer["fence"]
        return Accepted(
            turn=turn_of(answer["turn"]),
            duplicate=answer["duplicate"],
            started=answer["started"],
            lease=None if fence is None else Lease(user_id, owner, fence),
            forgotten=forgotten_of(answer["forgotten"]),
            cancelled=turns_of(answer.get("cancelled", [])),
            interrupted=turn_or_none(answer.get("interrupted")),
            mark=_mark(answer),
        )

    async def start(self, lease: Lease) -> Started | None:
        answer = granted(await self._client.call("start_turn", **_lease(lease)), lease.user_id)
        if answer["outcome"] == "idle":
            return None
        return Started(turn_of(answer["turn"]), forgotten_of(answer["forgotten"]))

    async def set_run(self, lease: Lease, turn_id: str, attempt: int, run_id: str) -> None:
        answer = await self._client.call("set_run", **_lease(lease), turn_id=turn_id, attempt=attempt, run_id=run_id)
        granted(answer, lease.user_id)

    async def finish(self, lease: Lease, end: TurnEnd) -> Turn:
        fields = asdict(end) | {"error": end.error and end.error.wire()}
        stored = json.dumps(fields, ensure_ascii=False, default=exact_money)
        answer = await self._client.call("finish_turn", **_lease(lease), end=stored)
        return turn_of(granted(answer, lease.user_id)["turn"])

    async def request_cancel(self, user_id: str, turn_id: str | None) -> Turn:
        if turn_id is not None and not is_uuid(turn_id):
            raise PlatformError(ErrorCode.NOT_FOUND)
        answer = await self._client.call("request_cancel", user_id=user_id, turn_id=turn_id)
        return turn_of(granted(answer, user_id)["turn"])

    async def open_turns(self, user_id: str) -> tuple[Turn | None, tuple[Turn, ...]]:
        answer = await self._client.call("open_turns", user_id=user_id)
        return turn_or_none(answer["running"]), turns_of(answer["queued"])

    async def turn(self, user_id: str, turn_id: str) -> Turn | None:
        if not is_uuid(turn_id):
            return None
        return turn_or_none(await self._client.call("get_turn", user_id=user_id, turn_id=turn_id))

    async def turn_by_run(self, user_id: str, run_id: str) -> Turn | None:
        return turn_or_none(await self._client.call("turn_by_run", user_id=user_id, run_id=run_id))

    async def closed_accounts(self, user_ids: Sequence[str]) -> list[str]:
        closed: list[str] = await self._client.call("closed_accounts", user_ids=list(user_ids))
        return closed

    async def redeem_ticket(self, ticket_id: str, expires_at: datetime) -> bool:
        redeemed: bool = await self._client.call(
            "redeem_ticket", repeat=False, ticket_id=ticket_id, expires_at=expires_at.isoformat()
        )
        return redeemed
