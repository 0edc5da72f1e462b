"""Models of the responses of `admin/…`."""

from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from server.api.schemas import Answer, Background, Budget, ModelSpending, Money, Ready, Spending, User
from server.protocol.codes import ErrorCode


class AdminUser(User):
    """A user as operators see them. `status_reason`: why the account is blocked or not ready."""

    status_reason: str | None
    is_admin: bool
    plan: str | None = Field(description="null: none of the named plans.")
    agent_id: str | None
    updated_at: datetime


class ListedUser(AdminUser):
    """A user in a list, with what was spent."""

    budget: Budget | None
    total: Spending = Field(description="Since registration.")


class AdminUsers(Answer):
    data: list[ListedUser] = Field(description="Newest first.")
    has_more: bool
    next_cursor: UUID | None


class PlanFields(Answer):
    budget: Money | None
    period: str | None
    tokens_per_minute: int | None
    requests_per_minute: int | None
    models: list[str] = Field(description="Empty: all.")


class Plans(Answer):
    default: str
    plans: dict[str, PlanFields]


class Failure(Answer):
    """The error of a turn. No text of the conversation."""

    turn_id: UUID
    at: datetime
    code: ErrorCode
    message: str


class AdminUserDetails(AdminUser):
    limits: PlanFields | None = Field(description="As the model gateway enforces them; null if it cannot be asked.")
    budget: Budget | None
    total: Spending = Field(description="Since registration.")
    open_turns: int
    connections: int = Field(description="Sockets and event streams on all instances.")
    last_message_at: datetime | None
    errors: list[Failure] = Field(description="The last ten, newest first.")


class AdminPlan(Answer):
    plan: str | None
    limits: PlanFields
    spent: Money | None = Field(description="In this period; null before the user's agent is made.")
    resets_at: datetime | None


class DayOfAll(Spending):
    date: date
    users: int = Field(description="How many wrote a message or had a model call.")
    models: list[ModelSpending] = Field(description="The most expensive first.")


class RangeOfAll(Spending):
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)

    first: date = Field(alias="from")
    last: date = Field(alias="to")
    background: Background = Field(description="The part of the models' costs that belongs to no message.")


class UsageOfAll(Answer):
    """All users together. All days are days in UTC."""

    range: RangeOfAll
    models: list[ModelSpending] = Field(description="Each model over the range, the most expensive first.")
    days: list[DayOfAll] = Field(description="The days of the range with usage, oldest first.")
    currency: Literal["USD"]
    timezone: Literal["UTC"]


class Finding(Answer):
    service: str
    name: str
    level: Literal["ok", "warn", "fail"]
    message: str
    remedy: str | None = Field(description="How to fix the problem.")


class ServiceHealth(Answer):
    instance: Ready = Field(description="The instance that answers, as `/ready`.")
    checked_at: datetime
    checks: list[Finding] = Field(description="What `chat doctor` finds; after an essential failure, fewer.")


class Action(Answer):
    """What an operator did. Never changed."""

    id: int
    at: datetime
    actor_id: UUID | None = Field(description="The admin; null: a command on the server.")
    actor_email: str | None = Field(description="null also if the admin was deleted since then.")
    source: str = Field(description="The admin's IP address, or `user@host` of the command.")
    action: str
    user_id: UUID | None = Field(description="The user it was about.")
    user_email: str | None = Field(description="null also if the user was deleted since then.")
    details: dict[str, Any]
    outcome: Literal["done", "failed"] | None = Field(description="null: under way, or interrupted.")
    reason: str | None = Field(description="Why it failed.")
    ended_at: datetime | None


class Actions(Answer):
    data: list[Action] = Field(description="Newest first.")
    has_more: bool
    next_cursor: int | None
