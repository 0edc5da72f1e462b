"""What users read of their own, judged by row level security."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol

from server.ports.identity import Principal
from server.protocol.shapes import Message, Turn, User


@dataclass(frozen=True, slots=True)
class Profile:
    user: User
    status_reason: str | None
    agent_id: str | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Newest first. `has_more`: there are further ones in the direction asked for."""

    data: tuple[Message, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class UsageDay:
    """One UTC day. `cost` in US dollars."""

    date: date
    messages: int
    tokens: int
    cost: Decimal


@dataclass(frozen=True, slots=True)
class UsageSum:
    messages: int
    tokens: int
    cost: Decimal


class UserReads(Protocol):
    """A user's own rows, read with that user's token."""

    async def profile(self, principal: Principal) -> Profile | None: ...

    async def history(
        self, principal: Principal, limit: int, *, before: int | None, after: int | None
    ) -> MessagePage: ...

    async def turn(self, principal: Principal, turn_id: str) -> Turn | None: ...

    async def usage_days(self, principal: Principal, first: date, last: date) -> list[UsageDay]: ...

    async def usage_total(self, principal: Principal) -> UsageSum: ...
