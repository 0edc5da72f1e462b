"""Forecast of the spending at the end of a period, at its current rate. Pure computation."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from server.protocol.shapes import MONEY

_DIGITS: Final = Decimal("0.000001")
"""A forecast is rounded like a message's cost."""
_DAY: Final = timedelta(days=1)
_SHORT: Final = 24
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Forecast:
    """`cost`: US dollars spent from the period's beginning to its end, `until`."""

    until: datetime
    cost: Decimal


def forecast(spent: Decimal, began: datetime, ends: datetime, now: datetime) -> Forecast | None:
    """`spent` plus the current rate times the remaining time. None if the period has not begun, or is over.

    The rate is computed over at least a day, or a 24th of a shorter period: otherwise the first minute of a month would
    give a far too high forecast."""
    elapsed, left = now - began, ends - now
    if elapsed <= timedelta() or left <= timedelta():
        return None
    paced = max(elapsed, min(_DAY, (ends - began) / _SHORT))
    cost = spent + spent * (left // _MICROSECOND) / (paced // _MICROSECOND)
    return Forecast(ends, max(cost.quantize(_DIGITS, context=MONEY), spent))
