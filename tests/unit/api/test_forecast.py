"""Forecast of the spending at the current rate."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from server.api.forecast import forecast

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def after(elapsed: timedelta, *, spent: str = "1", length: timedelta = 30 * DAY) -> Decimal | None:
    found = forecast(Decimal(spent), BEGAN, BEGAN + length, BEGAN + elapsed)
    assert found is None or found.until == BEGAN + length
    return None if found is None else found.cost


@pytest.mark.parametrize(
    ("days", "spent", "cost"),
    [(10, "1", "3"), (15, "0.5", "1"), (30 - 1, "29", "30"), (1, "1", "30"), (10, "0", "0")],
)
def test_the_rate_continues_to_the_end(days: int, spent: str, cost: str) -> None:
    assert after(days * DAY, spent=spent) == Decimal(cost)


@pytest.mark.parametrize("spent", ["0.000000075", "0.0000004", "0.0100004"])
def test_a_forecast_is_not_below_what_was_spent(spent: str) -> None:
    assert after(30 * DAY - timedelta(seconds=1), spent=spent) == Decimal(spent)


def test_the_rate_is_computed_over_at_least_a_day() -> None:
    assert after(timedelta(minutes=1)) == Decimal("30.999306")
    assert after(timedelta(minutes=1), length=timedelta(hours=24)) == Decimal("24.983333")


@pytest.mark.parametrize("elapsed", [timedelta(), -DAY, 30 * DAY, 31 * DAY])
def test_there_is_no_forecast_before_or_after_the_period(elapsed: timedelta) -> None:
    assert after(elapsed) is None


def test_there_is_no_forecast_for_a_period_that_ends_before_it_begins() -> None:
    assert forecast(Decimal(1), BEGAN, BEGAN - DAY, BEGAN + timedelta(hours=1)) is None
    assert forecast(Decimal(1), BEGAN, BEGAN, BEGAN) is None


def test_a_forecast_has_six_digits_and_no_scientific_notation() -> None:
    cost = after(7 * DAY, spent="0.1234567890123")
    assert str(cost) == "0.529101"
