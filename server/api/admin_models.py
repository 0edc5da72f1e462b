"""Models of the requests of `admin/…`."""

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BeforeValidator, Field, model_validator

from server.api.models import Email, Name, NewPassword, Request
from server.config.settings import BUDGET_PERIOD, HIGHEST_LIMIT, MOST_DIGITS, PlanName

Reason = Annotated[str, Field(min_length=1, max_length=300)]
PerMinute = Annotated[int, Field(ge=1, le=HIGHEST_LIMIT)]


def _amount(value: Any) -> Any:
    """A decimal string or a number as the exact Decimal that it shows."""
    try:
        return Decimal(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) else value
    except InvalidOperation as cause:
        raise ValueError("must be an amount such as 12.50") from cause


Amount = Annotated[
    Decimal,
    BeforeValidator(_amount, json_schema_input_type=str),
    Field(ge=0, max_digits=MOST_DIGITS, allow_inf_nan=False),
]
ModelName = Annotated[str, Field(min_length=1, max_length=200)]


class UsersQuery(Request):
    query: str | None = Field(default=None, min_length=1, max_length=254, description="An id, or part of an address.")
    status: Literal["provisioning", "active", "failed", "blocked", "deleting"] | None = None
    admins: bool = Field(default=False, description="Only admins.")
    limit: int = Field(default=50, ge=1, le=100)
    after: UUID | None = Field(default=None, description="`next_cursor` of the page before.")


class CreateUser(Request):
    email: Email
    password: NewPassword | None = Field(default=None, description="Without one the user sets one by recovery.")
    name: Name | None = None
    plan: PlanName | None = Field(default=None, description="One of admin/plans; the default one if absent.")


class ChangePlan(Request):
    """Either the name of a plan, or single fields; null removes a limit."""

    name: PlanName | None = Field(default=None, description="One of admin/plans.")
    budget: Amount | None = Field(default=None, description="US dollars per period.")
    period: Annotated[str, Field(pattern=BUDGET_PERIOD)] | None = Field(default=None, description="`30d`, `1mo`.")
    tokens_per_minute: PerMinute | None = None
    requests_per_minute: PerMinute | None = None
    models: Annotated[list[ModelName], Field(max_length=100)] | None = Field(
        default=None, description="null or an empty list: all."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = self.model_fields_set
        if not given or ("name" in given and (self.name is None or given != {"name"})):
            raise ValueError("give either `name`, or fields to change")
        return self

    def fields(self) -> dict[str, Any]:
        """The fields to change, as those of a Plan."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if "models" in given:
            given["models"] = tuple(given["models"] or ())
        return given


class BlockUser(Request):
    reason: Reason | None = Field(default=None, description="Shown to operators, and to the user as the status reason.")


class SetAdmin(Request):
    is_admin: bool


class RotateKey(Request):
    at_once: bool = Field(default=False, description="Block the old key as soon as the new one is in use.")


class AuditQuery(Request):
    user_id: UUID | None = Field(default=None, description="Actions on this user, or by this admin.")
    limit: int = Field(default=50, ge=1, le=100)
    before: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = Field(
        default=None, description="`next_cursor` of the page before."
    )
