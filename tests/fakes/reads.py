"""UserReads in memory: like row level security, the token, or without one the user, determines the rows."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal

from server.ports import (
    ApiKey,
    MessagePage,
    ModelUsage,
    Principal,
    Profile,
    Standing,
    TokenVerifier,
    UsageDay,
    UsageSum,
)
from server.protocol.shapes import Message, Turn
from tests.fakes.charges import standing
from tests.fakes.database import MemoryDatabase


@dataclass(slots=True)
class FakeReads:
    """Implements `server.ports.UserReads` on a MemoryDatabase."""

    database: MemoryDatabase
    verifier: TokenVerifier

    async def profile(self, principal: Principal) -> Profile | None:
        row = self.database.profiles.get(await self._owner(principal, "profile"))
        if row is None:
            return None
        return Profile(row.account.user, row.account.status_reason, row.account.agent_id, row.account.updated_at)

    async def history(
        self, principal: Principal, limit: int, *, before: int | None, after: int | None, with_steps: bool = False
    ) -> MessagePage:
        messages = self._messages(await self._owner(principal, "history"))
        return self._page(messages, limit, before=before, after=after, with_steps=with_steps)

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
        messages = self._messages(await self._owner(principal, "search"))
        found = [message for message in messages if _has_words(message.content, query)]
        return self._page(found, limit, before=before, after=after, with_steps=with_steps)

    async def turn(self, principal: Principal, turn_id: str, *, with_steps: bool = False) -> Turn | None:
        owner = await self._owner(principal, "turn")
        row = self.database.turns.get(turn_id)
        if row is None or row.is_deleted or row.turn.user_id != owner:
            return None
        shown = self.database.shown(row)
        if not with_steps:
            return shown
        return replace(shown, message=shown.message and self.database.with_steps(shown.message))

    async def api_keys(self, principal: Principal) -> list[ApiKey]:
        owner = await self._owner(principal, "api_keys")
        return [stored.key for stored in reversed(self.database.api_keys.values()) if stored.user_id == owner]

    async def usage_days(self, principal: Principal, first: date, last: date) -> list[UsageDay]:
        return self._days(await self._owner(principal, "usage_days"), first, last)

    async def usage_models(self, principal: Principal, first: date, last: date) -> list[ModelUsage]:
        rows = self.database.models.get(await self._owner(principal, "usage_models"), [])
        return sorted((row for row in rows if first <= row.date <= last), key=lambda row: (row.date, row.model))

    async def standing(self, principal: Principal) -> Standing | None:
        owner = await self._owner(principal, "standing")
        return self.database.standings.get(owner) or standing(self.database, owner)

    async def usage_total(self, principal: Principal) -> UsageSum:
        days = self._days(await self._owner(principal, "usage_total"), date.min, date.max)
        cost = sum((day.cost for day in days), Decimal(0))
        return UsageSum(sum(day.messages for day in days), sum(day.tokens for day in days), cost)

    async def _owner(self, principal: Principal, operation: str) -> str:
        await self.database.reached(operation)
        if principal.access_token is None:
            return principal.user_id
        return (await self.verifier.verify(principal.access_token.get_secret_value())).user_id

    def _page(
        self, messages: Sequence[Message], limit: int, *, before: int | None, after: int | None, with_steps: bool
    ) -> MessagePage:
        if with_steps:
            messages = [self.database.with_steps(message) for message in messages]
        between = [
            message
            for message in messages
            if (before is None or message.position < before) and (after is None or message.position > after)
        ]
        page = between[-limit:] if after is None else between[:limit]
        return MessagePage(tuple(reversed(page)), len(between) > limit)

    def _messages(self, user_id: str) -> Sequence[Message]:
        turns = [row.turn for row in self.database.of_user(user_id) if not row.is_deleted]
        return [message for turn in turns for message in (turn.user_message, turn.message) if message is not None]

    def _days(self, user_id: str, first: date, last: date) -> list[UsageDay]:
        return [
            UsageDay(day, row.messages, row.tokens, row.cost)
            for (owner, day), row in sorted(self.database.days.items())
            if owner == user_id and first <= day <= last
        ]


def _words(text: str) -> set[str]:
    plain = unicodedata.normalize("NFC", text[:32_000]).lower().replace("ё", "е")
    return set(re.findall(r"[^\W_]+", plain))


def _has_words(content: str, query: str) -> bool:
    """Whether each word of the query begins a word of the content, and there is one."""
    words, asked = _words(content), _words(query)
    return bool(asked) and all(any(word.startswith(start) for word in words) for start in asked)
