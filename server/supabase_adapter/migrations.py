"""Applying `supabase/migrations` to a project's database, recorded the way Supabase's own CLI records them.

Talks to PostgreSQL directly (SUPABASE_DB_URL, the session pooler): the service key cannot run DDL.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import psycopg
import structlog

from server.supabase_adapter.database import DatabaseError, connect

log = structlog.get_logger(__name__)

FILE_NAME = re.compile(r"^(?P<version>\d+)_(?P<name>.+)\.sql$")
LOCK = "select pg_advisory_xact_lock(hashtext('supabase_migrations.schema_migrations'))"
LEDGER = (
    "create schema if not exists supabase_migrations",
    "create table if not exists supabase_migrations.schema_migrations (version text not null primary key)",
    "alter table supabase_migrations.schema_migrations add column if not exists statements text[]",
    "alter table supabase_migrations.schema_migrations add column if not exists name text",
)

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
    """Why a migration could not be applied, as one sentence that names the file and the statement."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `version` is the digits its name begins with; `statements` its SQL, split at top-level semicolons."""

    version: str
    name: str
    statements: tuple[str, ...]


def split_statements(sql: str) -> Iterator[str]:
    """Split at semicolons outside of strings, quoted names, comments and dollar-quoted bodies.

    Knows no nested comments and no `begin atomic` bodies: our migrations use neither.
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
    """The project's own: a wheel holds them beside the code, a checkout where Supabase's CLI looks for them."""
    packed = files("server") / "migrations"
    return packed if packed.is_dir() else Path(__file__).parents[2] / "supabase" / "migrations"


def read_migrations(folder: Traversable) -> list[Migration]:
    """The migrations of a folder, oldest first. Raises MigrationError: no such folder, or two files of one version."""
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


def apply_migrations(dsn: str, folder: Traversable) -> list[str]:
    """Apply what is not applied yet, each file in a transaction of its own. Returns the versions applied now.

    Two deploys at once wait for each other. Raises DatabaseError; files before the failing one stay applied.
    """
    migrations = read_migrations(folder)
    try:
        with connect(dsn) as connection:
            _prepare_ledger(connection)
            return [migration.version for migration in migrations if _apply(connection, migration)]
    except psycopg.OperationalError as cause:
        raise MigrationError(f"The database stopped answering: {_sentence(cause)}") from cause
    except psycopg.Error as cause:
        raise MigrationError(f"The record of migrations could not be kept: {_sentence(cause)}") from cause


def _prepare_ledger(connection: psycopg.Connection) -> None:
    with connection.transaction():
        connection.execute(LOCK)
        known = connection.execute("select to_regclass('supabase_migrations.schema_migrations')").fetchone()
        columns = connection.execute(
            "select count(*) from information_schema.columns where table_schema = 'supabase_migrations'"
            " and table_name = 'schema_migrations' and column_name in ('version', 'statements', 'name')"
        ).fetchone()
        if known == (None,) or columns != (3,):
            for statement in LEDGER:
                connection.execute(statement.encode())


def _apply(connection: psycopg.Connection, migration: Migration) -> bool:
    """True if this call applied it. The lock is the transaction's, so that a transaction pooler would do as well."""
    with connection.transaction():
        connection.execute(LOCK)
        recorded = connection.execute(
            "select 1 from supabase_migrations.schema_migrations where version = %s", [migration.version]
        ).fetchone()
        if recorded is not None:
            return False
        for number, statement in enumerate(migration.statements, start=1):
            try:
                connection.execute(statement.encode())
            except psycopg.OperationalError:
                raise
            except psycopg.Error as cause:
                first_line = next(line for line in statement.splitlines() if line and not line.startswith("--"))
                raise MigrationError(
                    f"Migration {migration.version}_{migration.name} failed at statement {number} ({first_line[:80]}):"
                    f" {_sentence(cause)}"
                ) from cause
        connection.execute(
            "insert into supabase_migrations.schema_migrations (version, statements, name) values (%s, %s, %s)",
            [migration.version, list(migration.statements), migration.name],
        )
    log.info("migration.applied", version=migration.version, name=migration.name)
    return True


def _sentence(error: psycopg.Error) -> str:
    """The database's own words, on one line."""
    return error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__


def script(migrations: list[Migration]) -> str:
    """All migrations and their records as one SQL text, for the SQL editor of a project."""
    return "\n".join([";\n".join(LEDGER) + ";\n", *map(_script_of, migrations)])


def _script_of(migration: Migration) -> str:
    body = "".join(f"{statement};\n\n" for statement in migration.statements)
    statements = ", ".join(map(_literal, migration.statements))
    return (
        f"-- {migration.version}_{migration.name}\nbegin;\n\n{body}"
        "insert into supabase_migrations.schema_migrations (version, statements, name) values\n"
        f"({_literal(migration.version)}, array[{statements}]::text[], {_literal(migration.name)});\n\ncommit;\n"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
