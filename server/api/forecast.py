"""What will have been spent at the end of a period, if it goes on as it began. Pure computation."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from server.protocol.shapes import MONEY

_DIGITS: Final = Decimal("0.000001")
"""An estimate has no more digits than a message's cost."""
_DAY: Final = timedelta(days=1)
_SHORT: Final = 24
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Forecast:
    """`cost` in US dollars, spent between the period's beginning and `until`, its end."""

    until: datetime
    cost: Decimal


def forecast(spent: Decimal, began: datetime, ends: datetime, now: datetime) -> Forecast | None:
    """What was spent, and for the time left the pace so far. None where the period has not begun, or is over.

    The pace is that of at least a day (of periods of days, a 24th): the first minute of a month, in which all that was
    spent was spent in a minute, foretells no fortune."""
    elapsed, left = now - began, ends - now
    if elapsed <= timedelta() or left <= timedelta():
        return None
    paced = max(elapsed, min(_DAY, (ends - began) / _SHORT))
    cost = spent + spent * (left // _MICROSECOND) / (paced // _MICROSECOND)
    return Forecast(ends, max(cost.quantize(_DIGITS, context=MONEY), spent))
