"""AdminStore on the service-role SQL functions."""

import json
from datetime import date
from decimal import Decimal

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.outcomes import granted
from server.adapters.supabase.reads import model_usage_of, standing_of
from server.adapters.supabase.rows import Row, account_of, time_of, time_or_none
from server.ports import (
    Account,
    AccountDetails,
    AccountFilter,
    AccountSpending,
    Actor,
    AdminAction,
    DayOfAll,
    Outcome,
    TurnFailure,
    UsageOfAll,
    UsageSum,
)
from server.protocol.shapes import Json


class SupabaseAdminStore:
    """Implements `server.ports.AdminStore`. All rules are in `supabase/migrations`."""

    def __init__(self, client: SupabaseClient) -> None:
        self._client = client

    async def search(self, wanted: AccountFilter, after: str | None, limit: int) -> list[AccountSpending]:
        rows = await self._client.call(
            "search_accounts",
            query=wanted.text,
            status=wanted.status,
            admins=wanted.admins_only,
            after=after,
            limit=limit,
        )
        return [_spending_of(row) for row in rows]

    async def details(self, user_id: str, errors: int) -> AccountDetails | None:
        row = await self._client.call("account_details", user_id=user_id, errors=errors)
        return None if row is None else _details_of(row)

    async def block(self, user_id: str, reason: str | None, actor: Actor) -> Account:
        answer = await self._client.call(
            "block_account", user_id=user_id, reason=reason, actor_id=actor.user_id, source=actor.source
        )
        return account_of(granted(answer, user_id)["account"])

    async def unblock(self, user_id: str, actor: Actor) -> Account:
        answer = await self._client.call(
            "unblock_account", user_id=user_id, actor_id=actor.user_id, source=actor.source
        )
        return account_of(granted(answer, user_id)["account"])

    async def set_admin(self, user_id: str, is_admin: bool, actor: Actor) -> None:
        granted(
            await self._client.call(
                "set_admin", user_id=user_id, is_admin=is_admin, actor_id=actor.user_id, source=actor.source
            ),
            user_id,
        )

    async def label_plan(self, user_id: str, plan: str | None) -> Account:
        answer = await self._client.call("label_plan", user_id=user_id, plan=plan)
        return account_of(granted(answer, user_id)["account"])

    async def usage(self, first: date, last: date) -> UsageOfAll:
        answer = await self._client.call("usage_of_all", first=first.isoformat(), last=last.isoformat())
        return UsageOfAll(
            tuple(_day_of(row) for row in answer["days"]), tuple(model_usage_of(row) for row in answer["models"])
        )

    async def begin(self, actor: Actor, action: str, user_id: str | None, details: Json) -> int:
        action_id: int = await self._client.call(
            "begin_admin_action",
            repeat=False,
            action=action,
            user_id=user_id,
            details=json.dumps(details),
            actor_id=actor.user_id,
            source=actor.source,
        )
        return action_id

    async def end(
        self, action_id: int, outcome: Outcome, *, user_id: str | None = None, reason: str | None = None
    ) -> None:
        await self._client.call("end_admin_action", id=action_id, outcome=outcome, user_id=user_id, reason=reason)

    async def actions(self, user_id: str | None, before: int | None, limit: int) -> list[AdminAction]:
        rows = await self._client.call("admin_actions_page", user_id=user_id, before=before, limit=limit)
        return [_action_of(row) for row in rows]


def _spending_of(row: Row) -> AccountSpending:
    standing, total = row["standing"], row["total"]
    return AccountSpending(
        account=account_of(row["account"]),
        standing=None if standing is None else standing_of(standing),
        total=UsageSum(total["messages"], total["tokens"], Decimal(total["cost"])),
    )


def _details_of(row: Row) -> AccountDetails:
    spending = _spending_of(row)
    return AccountDetails(
        account=spending.account,
        standing=spending.standing,
        total=spending.total,
        open_turns=row["open_turns"],
        last_message_at=time_or_none(row["last_message_at"]),
        errors=tuple(
            TurnFailure(error["turn_id"], time_of(error["at"]), error["code"], error["message"])
            for error in row["errors"]
        ),
    )


def _day_of(row: Row) -> DayOfAll:
    return DayOfAll(date.fromisoformat(row["date"]), row["users"], row["messages"], row["tokens"], Decimal(row["cost"]))


def _action_of(row: Row) -> AdminAction:
    return AdminAction(**row | {"at": time_of(row["at"]), "ended_at": time_or_none(row["ended_at"])})
