"""What admins read and change of accounts, and the record of their actions. Money is in US dollars."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, Protocol

from pydantic import SecretStr

from server.ports.accounts import Account
from server.ports.reads import ModelUsage, Standing, UsageSum
from server.protocol.shapes import AgentStatus, Json

Outcome = Literal["done", "failed"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: an admin, or with `user_id` None somebody with the server's keys. `source`: the admin's IP address, or
    `user@host` of the command."""

    user_id: str | None
    source: str


@dataclass(frozen=True, slots=True)
class AdminAction:
    """An action with its outcome; `outcome` None: it is under way, or was interrupted.

    `actor_id`, `user_id`: who acted, and on whom. They may belong to users who were deleted since then, whose
    addresses are None.
    """

    id: int
    at: datetime
    actor_id: str | None
    actor_email: str | None
    source: str
    action: str
    user_id: str | None
    user_email: str | None
    details: Json
    outcome: Outcome | None
    reason: str | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class AccountFilter:
    """`text`: the whole id, or a part of the e-mail address."""

    text: str | None = None
    status: AgentStatus | None = None
    admins_only: bool = False


@dataclass(frozen=True, slots=True)
class AccountSpending:
    """One account in a list. `standing` None: its budget is not stored yet. `total`: since registration."""

    account: Account
    standing: Standing | None
    total: UsageSum


@dataclass(frozen=True, slots=True)
class TurnFailure:
    """The error of a turn, without the text of any message."""

    turn_id: str
    at: datetime
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class AccountDetails:
    """One account. `standing` None: its budget is not stored yet. `total`: since registration. `errors`: newest
    first."""

    account: Account
    standing: Standing | None
    total: UsageSum
    open_turns: int
    last_message_at: datetime | None
    errors: tuple[TurnFailure, ...]


@dataclass(frozen=True, slots=True)
class DayOfAll:
    """One UTC day of all users. `users`: how many wrote a message or had a model call."""

    date: date
    users: int
    messages: int
    tokens: int
    cost: Decimal


@dataclass(frozen=True, slots=True)
class UsageOfAll:
    """All users together, oldest day first."""

    days: tuple[DayOfAll, ...]
    models: tuple[ModelUsage, ...]


class AdminStore(Protocol):
    """Reads and changes of any account (service role). `block`, `unblock` and `set_admin` record the action in the same
    transaction; other actions are recorded with `begin` and `end`. Recorded actions are never changed."""

    async def search(self, wanted: AccountFilter, after: str | None, limit: int) -> list[AccountSpending]:
        """Accounts, the newest first; `after` is the id of the last one seen."""
        ...

    async def details(self, user_id: str, errors: int) -> AccountDetails | None:
        """The account with at most `errors` errors."""
        ...

    async def block(self, user_id: str, reason: str | None, actor: Actor) -> Account:
        """Block the account and cancel its turns. Raises PlatformError(not_found | last_admin)."""
        ...

    async def unblock(self, user_id: str, actor: Actor) -> Account:
        """Open a blocked account again. Raises PlatformError(not_found)."""
        ...

    async def set_admin(self, user_id: str, is_admin: bool, actor: Actor) -> None:
        """Make the user an admin, or no longer one. Raises PlatformError(not_found | last_admin)."""
        ...

    async def label_plan(self, user_id: str, plan: str | None) -> Account:
        """Store the name of the user's plan. Raises PlatformError(not_found)."""
        ...

    async def usage(self, first: date, last: date) -> UsageOfAll:
        """Both days included."""
        ...

    async def begin(self, actor: Actor, action: str, user_id: str | None, details: Json) -> int:
        """Record an action before it is done. Returns its id."""
        ...

    async def end(
        self, action_id: int, outcome: Outcome, *, user_id: str | None = None, reason: str | None = None
    ) -> None:
        """Record how it ended, and the user whom it created."""
        ...

    async def actions(self, user_id: str | None, before: int | None, limit: int) -> list[AdminAction]:
        """The newest first; with `user_id`, those on or by this user; `before` is the id of the last one seen."""
        ...


class UserCreation(Protocol):
    """Creates users on behalf of an operator, whether or not registration is open."""

    async def create_user(self, email: str, password: SecretStr, name: str | None) -> str:
        """Create a user with a confirmed e-mail address. Returns the id.

        Raises PlatformError(invalid_request | weak_password | rate_limited | supabase_unavailable)."""
        ...
