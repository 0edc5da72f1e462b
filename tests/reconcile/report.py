"""The result of a comparison for each user: the figures, as a table, and the differences."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

Figure = int | Decimal


@dataclass(slots=True)
class Report:
    """The counts of one user, by name. `wrong` lists the differences."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def disagreements(reports: Sequence[Report]) -> list[str]:
    """The differences of all users."""
    return [f"user {number}: {what}" for number, report in enumerate(reports) for what in report.wrong]


def table(names: Sequence[str], users: Sequence[Mapping[str, Figure]]) -> str:
    """The figures of these names, a line per user and one of their sums."""
    total = {name: sum(figures.get(name, 0) for figures in users) for name in names}
    lines = [["user", *names]]
    lines += [[str(number), *(_shown(figures.get(name, 0)) for name in names)] for number, figures in enumerate(users)]
    lines += [["all", *(_shown(total[name]) for name in names)]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _shown(figure: Figure) -> str:
    """Without an exponent."""
    return f"{figure:f}" if isinstance(figure, Decimal) else str(figure)
