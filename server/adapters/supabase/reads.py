"""UserReads through PostgREST with the user's own token: row level security restricts the rows.

Columns are listed, since users are not granted all of them, and amounts are cast to text, since JSON numbers lose
digits.
"""

from collections.abc import Callable
from datetime import date
from decimal import Decimal

from postgrest import AsyncPostgrestClient

from server.adapters.supabase.client import Query, SupabaseClient
from server.adapters.supabase.rows import Row, is_uuid, message_of, money_or_none, time_of, time_or_none, turn_of
from server.ports import MessagePage, ModelUsage, Principal, Profile, Standing, UsageDay, UsageSum
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, Turn, TurnStatus, User

PROFILE = "id,email,name,agent_status,status_reason,letta_agent_id,created_at,updated_at"
MESSAGE = "id,turn_id,role,content,status,tokens_used,cost::text,created_at,position"
TURN = (
    "id,user_id,number,client_message_id,status,attempt,cancel_requested_at,error,reason,usage,cost::text,cost_status,"
    f"created_at,started_at,finished_at,messages({MESSAGE})"
)
DAY = "date,total_messages,total_tokens,cost:exact_cost::text"
MODEL_DAY = (
    "date,model,model_calls,prompt_tokens,completion_tokens,cached_tokens,reasoning_tokens,total_tokens,cost,"
    "background_cost"
)
STANDING = "limit,spent,period,started_at,resets_at"

PAGE_ROWS = 500
"""Less than PostgREST's maximum (1,000 at Supabase), so that a page with fewer rows is the last one."""
MOST_ROWS = 20_000
"""Fifty models on each day of a year."""


class SupabaseReads:
    """Implements `server.ports.UserReads`."""

    def __init__(self, client: SupabaseClient) -> None:
        self._client = client

    async def _read(self, principal: Principal, query: Callable[[AsyncPostgrestClient], Query]) -> list[Row]:
        assert principal.access_token is not None
        return await self._client.read(principal.access_token, query)

    async def profile(self, principal: Principal) -> Profile | None:
        rows = await self._read(
            principal, lambda rest: rest.from_("user_profiles").select(PROFILE).eq("id", principal.user_id)
        )
        return _profile_of(rows[0]) if rows else None

    async def history(self, principal: Principal, limit: int, *, before: int | None, after: int | None) -> MessagePage:
        """A page by position; with `after`, the next `limit` messages after it. Always newest first."""

        def page_of(rest: AsyncPostgrestClient) -> Query:
            query = rest.from_("messages").select(MESSAGE).eq("user_id", principal.user_id)
            if before is not None:
                query = query.lt("position", before)
            if after is not None:
                query = query.gt("position", after)
            return query.order("position", desc=after is None).limit(limit + 1)

        rows = await self._read(principal, page_of)
        page = [message_of(row) for row in rows[:limit]]
        return MessagePage(tuple(page if after is None else reversed(page)), has_more=len(rows) > limit)

    async def turn(self, principal: Principal, turn_id: str) -> Turn | None:
        if not is_uuid(turn_id):
            return None
        rows = await self._read(principal, lambda rest: rest.from_("turns").select(TURN).eq("id", turn_id))
        if not rows:
            return None
        row = rows[0]
        messages = {message["role"]: message for message in row.pop("messages")}
        if "user" not in messages:  # its history was deleted
            return None
        position = await self._queue_position(principal, row) if row["status"] == TurnStatus.QUEUED else None
        return turn_of(
            row | {"user_message": messages["user"], "message": messages.get("assistant"), "queue_position": position}
        )

    async def _queue_position(self, principal: Principal, row: Row) -> int:
        """The turn's place among those that wait. It may have begun since its row was read: then it is next."""
        ahead = await self._read(
            principal,
            lambda rest: (
                rest.from_("turns")
                .select("id")
                .eq("user_id", principal.user_id)
                .eq("status", "queued")
                .lt("number", row["number"])
            ),
        )
        return len(ahead) + 1

    async def usage_days(self, principal: Principal, first: date, last: date) -> list[UsageDay]:
        """Both days included, oldest first, at most 1,000 (PostgREST's maximum)."""
        rows = await self._read(
            principal,
            lambda rest: (
                rest.from_("usage_metrics")
                .select(DAY)
                .eq("user_id", principal.user_id)
                .gte("date", first.isoformat())
                .lte("date", last.isoformat())
                .order("date")
            ),
        )
        return [
            UsageDay(date.fromisoformat(row["date"]), row["total_messages"], row["total_tokens"], Decimal(row["cost"]))
            for row in rows
        ]

    async def usage_models(self, principal: Principal, first: date, last: date) -> list[ModelUsage]:
        """See the port. Reads pages, since a year of several models has more rows than one page."""
        found: list[ModelUsage] = []
        while len(found) < MOST_ROWS:
            page = await self._usage_models(principal, first, last, len(found))
            found += [model_usage_of(row) for row in page]
            if len(page) < PAGE_ROWS:
                return found
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The range has too many rows: ask for fewer days.")

    async def _usage_models(self, principal: Principal, first: date, last: date, offset: int) -> list[Row]:
        return await self._read(
            principal,
            lambda rest: (
                rest.from_("usage_by_model")
                .select(MODEL_DAY)
                .eq("user_id", principal.user_id)
                .gte("date", first.isoformat())
                .lte("date", last.isoformat())
                .order("date")
                .order("model")
                .range(offset, offset + PAGE_ROWS - 1)
            ),
        )

    async def standing(self, principal: Principal) -> Standing | None:
        rows = await self._read(
            principal,
            lambda rest: rest.from_("budget_standings").select(STANDING).eq("user_id", principal.user_id),
        )
        return standing_of(rows[0]) if rows else None

    async def usage_total(self, principal: Principal) -> UsageSum:
        rows = await self._read(
            principal,
            lambda rest: (
                rest.from_("usage_totals")
                .select("total_messages,total_tokens,total_cost")
                .eq("user_id", principal.user_id)
            ),
        )
        if not rows:
            return UsageSum(0, 0, Decimal(0))
        row = rows[0]
        return UsageSum(row["total_messages"], row["total_tokens"], Decimal(row["total_cost"]))


def model_usage_of(row: Row) -> ModelUsage:
    return ModelUsage(
        date=date.fromisoformat(row["date"]),
        model=row["model"],
        model_calls=row["model_calls"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        cached_tokens=row["cached_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        tokens=row["total_tokens"],
        cost=Decimal(row["cost"]),
        background_cost=Decimal(row["background_cost"]),
    )


def standing_of(row: Row) -> Standing:
    return Standing(
        limit=money_or_none(row["limit"]),
        spent=money_or_none(row["spent"]) or Decimal(0),
        period=row["period"],
        started_at=time_or_none(row["started_at"]),
        resets_at=time_or_none(row["resets_at"]),
    )


def _profile_of(row: Row) -> Profile:
    user = User(
        id=row["id"],
        email=row["email"] or "",
        name=row["name"],
        agent_status=AgentStatus(row["agent_status"]),
        created_at=time_of(row["created_at"]),
    )
    return Profile(user, row["status_reason"], row["letta_agent_id"], time_of(row["updated_at"]))
