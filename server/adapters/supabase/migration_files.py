"""Reads the files of `supabase/migrations`, and joins them to one SQL text. See supabase/README.md."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from server.adapters.supabase.database import DatabaseError

FILE_NAME: Final = re.compile(r"^(?P<version>\d+)_(?P<name>.+)\.sql$")

REPEATABLE: Final = "9"
"""The first digit of a repeatable file's version: these follow all numbered files, here as in Supabase's CLI."""

RECORDS: Final = (
    "create schema if not exists supabase_migrations",
    "create table if not exists supabase_migrations.schema_migrations (version text not null primary key)",
    "alter table supabase_migrations.schema_migrations add column if not exists statements text[]",
    "alter table supabase_migrations.schema_migrations add column if not exists name text",
)
"""Statements that create the table in which Supabase's CLI records migrations."""

CONCURRENT: Final = re.compile(r"^(create|drop) index concurrently\b", re.MULTILINE)

TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<dollar> \$(?P<tag>[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*|)\$ .*? \$(?P=tag)\$ )
    | (?P<escaped> \b[eE]'(?:[^'\\]|\\.|'')*' )
    | (?P<quoted> '(?:[^']|'')*' | "(?:[^"]|"")*" )
    | (?P<end> ; )
    | (?P<other> [\w$]+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)


class MigrationError(DatabaseError):
    """Why the schema could not be migrated, as sentences for an operator."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `version`: the digits that begin its name; `statements`: its SQL, split at top-level semicolons."""

    version: str
    name: str
    statements: tuple[str, ...]

    @property
    def label(self) -> str:
        """The file's name without its ending."""
        return f"{self.version}_{self.name}"

    @property
    def is_repeatable(self) -> bool:
        """Whether it holds functions, triggers and views, and is applied whenever its content has changed."""
        return self.version.startswith(REPEATABLE)

    @property
    def is_concurrent(self) -> bool:
        """Whether it builds an index without a lock on the table, which PostgreSQL refuses within a transaction."""
        return any(CONCURRENT.search(statement) for statement in self.statements)


def split_statements(sql: str) -> Iterator[str]:
    """Split at semicolons outside of strings, quoted names, comments and dollar-quoted bodies.

    Supports neither nested comments nor `begin atomic` bodies; our migrations use neither.
    """
    current: list[str] = []
    substance = False
    for token in TOKEN.finditer(sql):
        if token.lastgroup == "end":
            if substance:
                yield "".join(current).strip()
            current, substance = [], False
        else:
            current.append(token.group())
            substance = substance or (token.lastgroup != "comment" and not token.group().isspace())
    if substance:
        yield "".join(current).strip()


def project_migrations() -> Traversable:
    """The folder of the migrations: in a wheel beside the code, in a checkout where Supabase's CLI expects it."""
    packed = files("server") / "migrations"
    return packed if packed.is_dir() else Path(__file__).parents[3] / "supabase" / "migrations"


def read_migrations(folder: Traversable) -> list[Migration]:
    """The migrations of a folder, in the order of their names: numbered ones first, oldest first, then repeatable ones.

    Raises MigrationError: no such folder, or two files of one version.
    """
    if not folder.is_dir():
        raise MigrationError(f"There is no folder of migrations at {folder}.")
    found: dict[str, Migration] = {}
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        match = FILE_NAME.match(file.name)
        if match is None:
            continue
        version = match["version"]
        if version in found:
            raise MigrationError(f"Two migrations have the version {version}: {found[version].name}, {match['name']}.")
        found[version] = Migration(version, match["name"], tuple(split_statements(file.read_text("utf-8"))))
    return list(found.values())


def script(migrations: Sequence[Migration]) -> str:
    """All migrations and their records as one SQL text, for the SQL editor of a new project.

    The editor runs it in one transaction, so indexes are built with a lock, of tables that are empty."""
    return "\n".join([";\n".join(RECORDS) + ";\n", *map(_script_of, migrations)])


def _script_of(migration: Migration) -> str:
    body = "".join(f"{statement};\n\n" for statement in migration.statements)
    if migration.is_concurrent:
        body = CONCURRENT.sub(r"\1 index", body)
    statements = ", ".join(map(_literal, migration.statements))
    return (
        f"-- {migration.label}\nbegin;\n\n{body}"
        "insert into supabase_migrations.schema_migrations (version, statements, name) values\n"
        f"({_literal(migration.version)}, array[{statements}]::text[], {_literal(migration.name)});\n\ncommit;\n"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
