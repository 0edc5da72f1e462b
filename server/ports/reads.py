"""Reads of a user's own data, restricted by row level security."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Protocol

from server.ports.credentials import ApiKey
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
    """Newest first. `has_more`: there are further messages in the requested direction."""

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
class ModelUsage:
    """A user's usage of one model on one UTC day. US dollars, unrounded.

    `tokens` are prompt and completion; cached tokens are part of the prompt, reasoning tokens of the completion.
    `background_cost` is the part of `cost` that belongs to no message: the agent's housekeeping.
    """

    date: date
    model: str
    model_calls: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    tokens: int
    cost: Decimal
    background_cost: Decimal


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a user's budget in its period. `spent` in US dollars according to our ledger, since `started_at`.

    `limit` None: unlimited.
    """

    limit: Decimal | None
    spent: Decimal
    period: str | None
    started_at: datetime | None
    resets_at: datetime | None


@dataclass(frozen=True, slots=True)
class UsageSum:
    messages: int
    tokens: int
    cost: Decimal


class UserReads(Protocol):
    """A user's own rows, read with that user's token, or for an API key under that user's role and claims."""

    async def profile(self, principal: Principal) -> Profile | None: ...

    async def history(
        self, principal: Principal, limit: int, *, before: int | None, after: int | None, with_steps: bool = False
    ) -> MessagePage: ...

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
        """The page of the history's messages in which each word of `query` begins a word.

        Words are runs of letters and digits, in any case, `ё` equal to `е`, of a message's first 32,000 characters. A
        query without a word finds nothing.
        """
        ...

    async def turn(self, principal: Principal, turn_id: str, *, with_steps: bool = False) -> Turn | None: ...

    async def api_keys(self, principal: Principal) -> list[ApiKey]:
        """The user's API keys, the newest first, also expired ones."""
        ...

    async def usage_days(self, principal: Principal, first: date, last: date) -> list[UsageDay]: ...

    async def usage_models(self, principal: Principal, first: date, last: date) -> list[ModelUsage]:
        """Both days included, by day and model. Raises PlatformError(invalid_request) if there are too many rows."""
        ...

    async def usage_total(self, principal: Principal) -> UsageSum: ...

    async def standing(self, principal: Principal) -> Standing | None:
        """None before the user's budget was stored for the first time."""
        ...
