"""The slowest statements of a run, from PostgreSQL's own log: the local stack's build has no pg_stat_statements.

While it lasts, every statement of the cluster is logged with its duration, and no parameter. Independent of pytest.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from server.stack.layout import Layout
from tests.stack.running_stack import RunningStack

SETTINGS: Final = {
    "log_min_duration_statement": "0",
    "log_line_prefix": "[%d] ",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
_ENTRY: Final = re.compile(r"\[(?P<database>\w*)\] LOG:  duration: (?P<ms>[\d.]+) ms  (?:statement|execute [^:]*): ")
_CONSTANT: Final = re.compile(r"'(?:[^']|'')*'|\b\d+\b")
_SHOWN: Final = 120
"""Characters of a statement that are printed."""


@dataclass(slots=True)
class Statement:
    """A statement without its constants, and the milliseconds of each execution."""

    text: str
    times: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= _SHOWN else f"{self.text[:_SHOWN]}…"
        mean = sum(self.times) / len(self.times)
        return f"{max(self.times):9.1f} {mean:9.2f} {len(self.times):7,} {shown}"


@contextmanager
def logged_statements(stack: RunningStack, database: str) -> Iterator[list[Statement]]:
    """At the end of the block the list has the statements of this database, the slowest execution first."""
    log, found = Layout(stack.data_dir, api_port=0).log("postgres"), list[Statement]()
    owner_url = stack.env["SUPABASE_DB_URL"]
    before = log.stat().st_size
    _configure(owner_url, "set")
    try:
        yield found
    finally:
        _configure(owner_url, "reset")
        found.extend(slowest(_lines(log, before), database))


def slowest(lines: Iterable[str], database: str) -> list[Statement]:
    """The statements of the database in these lines of a log, the slowest execution first."""
    statements: dict[str, Statement] = {}
    for milliseconds, text in _executions(lines, database):
        plain = _CONSTANT.sub("?", " ".join(text.split()))
        statements.setdefault(plain, Statement(plain)).times.append(milliseconds)
    return sorted(statements.values(), key=lambda one: max(one.times), reverse=True)


def table(statements: Iterable[Statement]) -> str:
    """Milliseconds at most and on average, executions, statement."""
    return "\n".join((f"{'most ms':>9} {'mean ms':>9} {'times':>7} statement", *map(str, statements)))


def _executions(lines: Iterable[str], database: str) -> Iterator[tuple[float, str]]:
    """Milliseconds and text of each execution. PostgreSQL begins further lines of a statement with a tab."""
    entry: re.Match[str] | None = None
    text = ""
    for line in lines:
        if line.startswith("\t"):
            text += line
            continue
        if entry is not None and entry["database"] == database:
            yield float(entry["ms"]), text
        entry = _ENTRY.match(line)
        text = "" if entry is None else line[entry.end() :]
    if entry is not None and entry["database"] == database:
        yield float(entry["ms"]), text


def _configure(url: str, verb: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for name, value in SETTINGS.items():
            statement = sql.SQL("alter system {} {}").format(sql.SQL(verb), sql.Identifier(name))
            if verb == "set":
                statement += sql.SQL(" = {}").format(sql.Literal(value))
            connection.execute(statement)
        connection.execute("select pg_reload_conf()")


def _lines(log: Path, offset: int) -> Iterator[str]:
    with log.open("rb") as file:
        file.seek(offset)
        for line in file:
            yield line.decode(errors="replace").rstrip("\n")
