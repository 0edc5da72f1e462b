"""The figures of a run as a table, with the aims beside them: for the terminal, or as Markdown."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

HEAD: Final = ("what", "aim", "met", "measured")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `is_met`: whether the aim is met; None: the figure has no aim."""

    what: str
    measured: str
    aim: str = ""
    is_met: bool | None = None

    @property
    def cells(self) -> tuple[str, str, str, str]:
        met = {True: "yes", False: "no", None: ""}[self.is_met]
        return self.what, self.aim, met, self.measured


def at_most(what: str, value: float, aim: float, unit: str = "", beside: str = "") -> Row:
    """A figure that shall be `aim` at most. `beside`: what else was measured."""
    measured = _with_unit(value, unit) + (f" ({beside})" if beside else "")
    return Row(what, measured, f"≤ {_with_unit(aim, unit)}", value <= aim)


def at_least(what: str, value: float, aim: float, unit: str = "", beside: str = "") -> Row:
    """A figure that shall be `aim` at least."""
    return replace(at_most(what, value, aim, unit, beside), aim=f"≥ {_with_unit(aim, unit)}", is_met=value >= aim)


def ratio(what: str, value: float, to: float, aim: float, unit: str) -> Row:
    """How many times `to` a figure is, with both beside it."""
    return at_most(what, times(value, to), aim, "times", f"{_with_unit(value, unit)} against {_with_unit(to, unit)}")


def times(value: float, to: float) -> float:
    """How many times `to`; not a number if nothing was measured, as in a very short run."""
    return value / to if to else math.nan


def as_text(rows: Sequence[Row]) -> str:
    """The table with aligned columns."""
    lines = [HEAD, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def as_markdown(rows: Iterable[Row]) -> str:
    """The table for docs/performance.md."""
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _with_unit(value: float, unit: str) -> str:
    decimals = 0 if isinstance(value, int) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{decimals}f} {unit}".rstrip()
