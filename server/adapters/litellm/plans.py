"""Converts a customer's plan to and from LiteLLM's fields.

Pure. The limits are set on the user, not on the key, so that they outlive every key."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from server.ports import Budget, Plan

EVERY_MODEL: Final = "all-proxy-models"
"""LiteLLM's name for all models. A change with an empty list does not change the models (measured)."""


def plan_as_sent(plan: Plan) -> dict[str, object]:
    """All fields of a plan; limits it does not have are null, which removes them."""
    return {
        "max_budget": None if plan.budget is None else float(plan.budget),
        "budget_duration": plan.period,
        "tpm_limit": plan.tokens_per_minute,
        "rpm_limit": plan.requests_per_minute,
        "models": list(plan.models) or [EVERY_MODEL],
    }


def plan_of(user: Mapping[str, Any]) -> Plan:
    """The plan of a user's row."""
    models = tuple(str(model) for model in user.get("models") or ())
    return Plan(
        budget=_money(user.get("max_budget")),
        period=user.get("budget_duration"),
        tokens_per_minute=user.get("tpm_limit"),
        requests_per_minute=user.get("rpm_limit"),
        models=() if EVERY_MODEL in models else models,
    )


def budget_of(user: Mapping[str, Any]) -> Budget:
    """The budget of the user of this row."""
    return Budget(
        limit=_money(user.get("max_budget")),
        spent=_money(user.get("spend")) or Decimal(0),
        period=user.get("budget_duration"),
        resets_at=moment(user.get("budget_reset_at")),
    )


def moment(value: str | None) -> datetime | None:
    """A time that LiteLLM wrote; UTC if it has no zone."""
    if value is None:
        return None
    found = datetime.fromisoformat(value)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _money(value: Decimal | int | None) -> Decimal | None:
    return None if value is None else Decimal(value)
