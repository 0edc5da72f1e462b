"""A customer's plan in LiteLLM's words: what is sent when it is made or changed, and what is read of it again.

Pure. What a user may use stands at the user, not at the key, so that it outlives every key."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from server.ports import Budget, Plan

EVERY_MODEL: Final = "all-proxy-models"
"""LiteLLM's own name for all of them. An empty list, sent with a change, leaves the models as they are (measured)."""


def plan_as_sent(plan: Plan) -> dict[str, object]:
    """All of a plan, with the limits it does not have as the nulls that remove them."""
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
    """Where the user of this row stands."""
    return Budget(
        limit=_money(user.get("max_budget")),
        spent=_money(user.get("spend")) or Decimal(0),
        period=user.get("budget_duration"),
        resets_at=moment(user.get("budget_reset_at")),
    )


def moment(value: str | None) -> datetime | None:
    """A time that LiteLLM wrote; UTC where it names no zone."""
    if value is None:
        return None
    found = datetime.fromisoformat(value)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _money(value: Decimal | int | None) -> Decimal | None:
    return None if value is None else Decimal(value)
