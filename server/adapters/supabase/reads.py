"""UserReads under row level security: through PostgREST with the user's own token, or for an API key, which has none,
by a SQL function that takes the user's role and claims. The same policies restrict the rows.

Columns are listed, since users are not granted all of them, and amounts are cast to text, since JSON numbers lose
digits.
"""

from datetime import date
from decimal import Decimal

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.rows import (
    Row,
    api_key_of,
    is_uuid,
    message_of,
    money_or_none,
    time_of,
    time_or_none,
    turn_of,
)
from server.adapters.supabase.select import Condition, Select
from server.ports import ApiKey, MessagePage, ModelUsage, Principal, Profile, Standing, UsageDay, UsageSum
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, Turn, TurnStatus, User

PROFILE = "id,email,name,agent_status,status_reason,letta_agent_id,created_at,updated_at"
MESSAGE = "id,turn_id,role,content,status,tokens_used,cost::text,created_at,position"
STEPS = f"{MESSAGE},steps"
TURN = (
    "id,user_id,number,client_message_id,status,attempt,cancel_requested_at,error,reason,usage,cost::text,cost_status,"
    "created_at,started_at,finished_at"
)
DAY = "date,total_messages,total_tokens,cost:exact_cost::text"
MODEL_DAY = (
    "date,model,model_calls,prompt_tokens,completion_tokens,cached_tokens,reasoning_tokens,total_tokens,cost,"
    "background_cost"
)
STANDING = "limit,spent,period,started_at,resets_at"
API_KEY = "id,name,prefix,scopes,created_at,expires_at,last_used_at"
TOTAL = "total_messages,total_tokens,total_cost"

PAGE_ROWS = 500
"""Less than PostgREST's maximum (1,000 at Supabase), so that a page with fewer rows is the last one."""
MOST_ROWS = 20_000
"""Fifty models on each day of a year."""


class SupabaseReads:
    """Implements `server.ports.UserReads`."""

    def __init__(self, client: SupabaseClient) -> None:
        self._client = client

    async def _read(self, principal: Principal, select: Select) -> list[Row]:
        if principal.access_token is None:
            return await self._client.read_as_user(principal.user_id, select.wire())
        return await self._client.read(principal.access_token, select.of)

    async def profile(self, principal: Principal) -> Profile | None:
        rows = await self._read(principal, Select("user_profiles", PROFILE, (("id", "eq", principal.user_id),)))
        return _profile_of(rows[0]) if rows else None

    async def history(
        self, principal: Principal, limit: int, *, before: int | None, after: int | None, with_steps: bool = False
    ) -> MessagePage:
        """A page by position; with `after`, the next `limit` messages after it. Always newest first."""
        where: tuple[Condition, ...] = (("user_id", "eq", principal.user_id),)
        if before is not None:
            where = (*where, ("position", "lt", before))
        if after is not None:
            where = (*where, ("position", "gt", after))
        columns = STEPS if with_steps else MESSAGE
        order = "-position" if after is None else "position"
        rows = await self._read(principal, Select("messages", columns, where, (order,), limit + 1))
        page = [message_of(row) for row in rows[:limit]]
        return MessagePage(tuple(page if after is None else reversed(page)), has_more=len(rows) > limit)

    async def search(
        self,
        principal: Principal,
        query: str,
        limit: int,
        *,
        before: int | None,
        after: int | None,
        with_steps: bool = False,
    ) -> MessagePage:
        """See the port. The index of words knows positions alone; the messages are read as the user."""
        found: list[int] = await self._client.search(
            "search_messages", user_id=principal.user_id, query=query, before=before, after=after, limit=limit + 1
        )
        if not found:
            return MessagePage((), has_more=False)
        positions = ",".join(map(str, found[:limit]))
        where: tuple[Condition, ...] = (("user_id", "eq", principal.user_id), ("position", "in", positions))
        columns = STEPS if with_steps else MESSAGE
        rows = await self._read(principal, Select("messages", columns, where, ("-position",)))
        # The history may have been deleted in between.
        return MessagePage(tuple(map(message_of, rows)), has_more=len(found) > limit and bool(rows))

    async def turn(self, principal: Principal, turn_id: str, *, with_steps: bool = False) -> Turn | None:
        """The turn, and then its messages: a reply is stored together with the turn's end, so none is missing."""
        if not is_uuid(turn_id):
            return None
        rows = await self._read(principal, Select("turns", TURN, (("id", "eq", turn_id),)))
        columns = STEPS if with_steps else MESSAGE
        said = await self._read(principal, Select("messages", columns, (("turn_id", "eq", turn_id),))) if rows else []
        messages = {message["role"]: message for message in said}
        if "user" not in messages:  # there is no such turn, or its history was deleted just now
            return None
        row = rows[0]
        position = await self._queue_position(principal, row) if row["status"] == TurnStatus.QUEUED else None
        return turn_of(
            row | {"user_message": messages["user"], "message": messages.get("assistant"), "queue_position": position}
        )

    async def _queue_position(self, principal: Principal, row: Row) -> int:
        """The turn's place among those that wait. It may have begun since its row was read: then it is next."""
        where: tuple[Condition, ...] = (
            ("user_id", "eq", principal.user_id),
            ("status", "eq", "queued"),
            ("number", "lt", row["number"]),
        )
        return len(await self._read(principal, Select("turns", "id", where))) + 1

    async def api_keys(self, principal: Principal) -> list[ApiKey]:
        where: tuple[Condition, ...] = (("user_id", "eq", principal.user_id),)
        rows = await self._read(principal, Select("api_keys", API_KEY, where, ("-created_at", "id")))
        return [api_key_of(row) for row in rows]

    async def usage_days(self, principal: Principal, first: date, last: date) -> list[UsageDay]:
        """Both days included, oldest first, at most 1,000 (PostgREST's maximum)."""
        rows = await self._read(
            principal, Select("usage_metrics", DAY, _between(principal, first, last), ("date",), limit=1_000)
        )
        return [
            UsageDay(date.fromisoformat(row["date"]), row["total_messages"], row["total_tokens"], Decimal(row["cost"]))
            for row in rows
        ]

    async def usage_models(self, principal: Principal, first: date, last: date) -> list[ModelUsage]:
        """See the port. Reads pages, since a year of several models has more rows than one page."""
        found: list[ModelUsage] = []
        while len(found) < MOST_ROWS:
            where, order = _between(principal, first, last), ("date", "model")
            page = await self._read(
                principal, Select("usage_by_model", MODEL_DAY, where, order, PAGE_ROWS, offset=len(found))
            )
            found += [model_usage_of(row) for row in page]
            if len(page) < PAGE_ROWS:
                return found
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The range has too many rows: ask for fewer days.")

    async def standing(self, principal: Principal) -> Standing | None:
        rows = await self._read(
            principal, Select("budget_standings", STANDING, (("user_id", "eq", principal.user_id),))
        )
        return standing_of(rows[0]) if rows else None

    async def usage_total(self, principal: Principal) -> UsageSum:
        rows = await self._read(principal, Select("usage_totals", TOTAL, (("user_id", "eq", principal.user_id),)))
        if not rows:
            return UsageSum(0, 0, Decimal(0))
        row = rows[0]
        return UsageSum(row["total_messages"], row["total_tokens"], Decimal(row["total_cost"]))


def _between(principal: Principal, first: date, last: date) -> tuple[Condition, ...]:
    return (
        ("user_id", "eq", principal.user_id),
        ("date", "gte", first.isoformat()),
        ("date", "lte", last.isoformat()),
    )


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
