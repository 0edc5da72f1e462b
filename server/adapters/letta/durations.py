"""Parses how long to wait from the text of a model provider's rate limit. Pure."""

import math
import re
from typing import Final

from server.resilience import LONGEST_RETRY_SECONDS

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_UNITS: Final = {
    "ms": r"ms\b|ms(?=\d)|msecs?\b|milli-?seconds?\b",
    "s": r"s\b|secs?\b|seconds?\b",
    "m": r"m\b|m(?=\d)|mins?\b|minutes?\b",
    "h": r"h\b|h(?=\d)|hrs?\b|hours?\b",
    "d": r"d\b|d(?=\d)|days?\b",
}
_UNIT: Final = "|".join(f"(?P<{name}>{words})" for name, words in _UNITS.items())
_INTRODUCED: Final = re.compile(
    r"(?:re)?try(?:ing)?(?: your request| it)?(?: again)?[ _-](?:after|in)(?P<milliseconds>[ _-]?ms)?\b", re.IGNORECASE
)
_BETWEEN: Final = re.compile(r"""['"]?\s?[:=]?\s?['"]?(?:about |another )?""", re.IGNORECASE)
_PART: Final = re.compile(rf"(?P<number>\d{{1,9}}(?:\.\d{{0,9}})?|\.\d{{1,9}})\s?(?:{_UNIT})", re.IGNORECASE)
_BETWEEN_PARTS: Final = re.compile(r"(?:,? and |, ?| )?(?=\d)", re.IGNORECASE)
_BARE: Final = re.compile(r"(\d{1,9}(?:\.\d{0,9})?)(?![\w:/%-]|[.,]\d|\s?[^\W\d_])")


def parse_wait(text: str) -> int | None:
    """The seconds that a text such as `Please try again in 6m0s` names, rounded up, 1 to 86,400; None if it names none.
    A number without a unit is seconds; a date, or a number of anything else, is not a wait."""
    for introduced in _INTRODUCED.finditer(text):
        between = _BETWEEN.match(text, introduced.end())
        start = between.end() if between else introduced.end()
        seconds = _duration(text, start, default=0.001 if introduced["milliseconds"] else 1.0)
        if seconds is not None:
            return min(max(1, math.ceil(round(seconds, 6))), int(LONGEST_RETRY_SECONDS))
    return None


def _duration(text: str, position: int, default: float) -> float | None:
    """The seconds written at `position`: parts with units (`1h2m3.5s`), or one number in units of `default` seconds."""
    total, found = 0.0, False
    while part := _PART.match(text, position):
        unit = next(name for name in _SECONDS if part[name])
        total, found = total + float(part["number"]) * _SECONDS[unit], True
        position = part.end()
        if gap := _BETWEEN_PARTS.match(text, position):
            position = gap.end()
    if found:
        return total
    bare = _BARE.match(text, position)
    return float(bare[1]) * default if bare else None
