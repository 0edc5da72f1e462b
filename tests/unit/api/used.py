"""Rows of usage by model."""

from datetime import date
from decimal import Decimal

from server.ports import ModelUsage


def used(day: str, model: str, cost: str, background: str = "0") -> ModelUsage:
    """One call."""
    return ModelUsage(date.fromisoformat(day), model, 1, 100, 10, 64, 3, 110, Decimal(cost), Decimal(background))
