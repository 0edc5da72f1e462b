"""Applying `supabase/migrations` to a project's database, recorded the way Supabase's own CLI records them.

A numbered file is applied once; a repeatable one, which holds functions, triggers and views, whenever its content
differs from the recorded one. All in one transaction, except for indexes that are built concurrently, after it. Talks
to PostgreSQL directly (SUPABASE_DB_URL, the session pooler): the service key cannot run DDL.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.resources.abc import Traversable
from typing import Final

import psycopg
import structlog
from psycopg.errors import DeadlockDetected, LockNotAvailable
from tenacity import RetryError, Retrying, retry_if_exception_type, retry_if_not_result, stop_after_attempt, wait_fixed

from server.adapters.supabase.baseline import adopt_baseline
from server.adapters.supabase.database import connect
from server.adapters.supabase.migration_files import RECORDS, REPEATABLE, Migration, MigrationError, read_migrations

log = structlog.get_logger(__name__)

LOCK: Final = "select pg_advisory_xact_lock(hashtext('supabase_migrations.schema_migrations'))"

LOCK_TIMEOUT: Final = "set local lock_timeout = '3s'"
"""For each lock on a table: while a migration waits for it, the calls of serving instances queue behind it."""

INDEX_LOCK: Final = "select pg_try_advisory_lock(hashtext('supabase_migrations.indexes'))"
"""Of the connection that builds indexes. Others try again: one that waited for it in a statement would have a snapshot,
for whose end the building waits in turn."""

INDEX_UNLOCK: Final = "select pg_advisory_unlock(hashtext('supabase_migrations.indexes'))"
"""A pooler may give the session to another client, with its locks and settings."""

INDEX_LOCK_SECONDS: Final = 0.2
INDEX_LOCK_ATTEMPTS: Final = 3_000
"""Ten minutes."""

ATTEMPTS: Final = 5
"""Of a migration that a lock timeout, or a deadlock with a serving instance, has rolled back."""

RECORD: Final = """
insert into supabase_migrations.schema_migrations (version, statements, name) values (%s, %s, %s)
on conflict (version) do update set statements = excluded.statements, name = excluded.name
"""

DELETE_OBSOLETE: Final = """
delete from supabase_migrations.schema_migrations where starts_with(version, %s) and version <> all(%s)
"""
"""Deletes the records of removed repeatable files, since Supabase's CLI stops at a record without a file."""

Recorded = Mapping[str, list[str] | None]
"""The statements of each migration that a database has, by version; None if only the version is recorded."""


def apply_migrations(dsn: str, folder: Traversable) -> list[str]:
    """Apply the pending migrations. Returns the names of the applied files.

    All in one transaction: a serving instance sees the schema before or after it. Concurrent deploys wait for each
    other. Raises DatabaseError, and then nothing has changed. Afterwards indexes are built, while messages are read and
    written; if that fails, DatabaseError is raised, too, and the next run builds them. With a transaction pooler the
    lock of the indexes would stay with a connection that others use.
    """
    migrations = read_migrations(folder)
    retrying = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        retry=retry_if_exception_type((DeadlockDetected, LockNotAvailable)),
        reraise=True,
    )
    try:
        with connect(dsn) as connection:
            applied = retrying(_apply_pending, connection, migrations)
            _log(applied)
            built = _build_indexes(connection, migrations)
    except (DeadlockDetected, LockNotAvailable) as cause:
        raise MigrationError(f"The tables are in use, so nothing was changed; try again: {_sentence(cause)}") from cause
    except psycopg.OperationalError as cause:
        raise MigrationError(f"The database stopped answering: {_sentence(cause)}") from cause
    except psycopg.Error as cause:
        raise MigrationError(f"The record of migrations could not be written: {_sentence(cause)}") from cause
    _log(built)
    return [migration.label for migration in (*applied, *built)]


def _log(applied: Sequence[Migration]) -> None:
    for migration in applied:
        log.info("migration.applied", version=migration.version, name=migration.name)


def pending_of(migrations: Sequence[Migration], recorded: Recorded) -> list[Migration]:
    """The pending files, in order: numbered ones without a record, then repeatable ones whose content differs.

    After a numbered file every repeatable one is pending, since it may have dropped a view to change a column.
    """
    numbered = [m for m in migrations if not m.is_repeatable and m.version not in recorded]
    return numbered + [
        m for m in migrations if m.is_repeatable and (numbered or recorded.get(m.version) != list(m.statements))
    ]


def recorded_in(connection: psycopg.Connection) -> Recorded:
    """The migrations that the database has recorded as applied."""
    found = connection.execute("select to_regclass('supabase_migrations.schema_migrations')").fetchone()
    if found == (None,):
        return {}
    return dict(
        connection.execute(
            "select version, nullif(to_jsonb(m) -> 'statements', 'null') from supabase_migrations.schema_migrations m"
        ).fetchall()
    )


def _apply_pending(connection: psycopg.Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """Apply in one transaction, which holds the lock."""
    with connection.transaction():
        connection.execute(LOCK)
        connection.execute(LOCK_TIMEOUT)
        _prepare_records(connection)
        for migration in adopt_baseline(connection, migrations, recorded_in(connection)):
            _record(connection, migration)
        pending = pending_of([m for m in migrations if not m.is_concurrent], recorded_in(connection))
        for migration in pending:
            _apply(connection, migration)
        connection.execute(DELETE_OBSOLETE, [REPEATABLE, [migration.version for migration in migrations]])
    return pending


def _build_indexes(connection: psycopg.Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """Apply the pending files that build indexes concurrently, each statement in a transaction of its own."""
    concurrent = [migration for migration in migrations if migration.is_concurrent]
    if not pending_of(concurrent, recorded_in(connection)):
        return []
    log.info("migration.building_indexes")
    try:
        with _index_lock(connection):
            pending = pending_of(concurrent, recorded_in(connection))
            for migration in pending:
                _apply(connection, migration)
    except psycopg.Error as cause:
        raise MigrationError(
            f"The schema is migrated, but an index could not be built; the next run builds it: {_sentence(cause)}"
        ) from cause
    return pending


@contextmanager
def _index_lock(connection: psycopg.Connection) -> Iterator[None]:
    """Hold the lock, without a limit of a statement's time. Raises MigrationError if it is not released in time."""
    wait_for_others = Retrying(
        retry=retry_if_not_result(bool),
        wait=wait_fixed(INDEX_LOCK_SECONDS),
        stop=stop_after_attempt(INDEX_LOCK_ATTEMPTS),
    )
    try:
        wait_for_others(lambda: connection.execute(INDEX_LOCK).fetchone() == (True,))
    except RetryError:
        raise MigrationError(
            "The schema is migrated. Another run is still building indexes; try again when it has ended."
        ) from None
    try:
        connection.execute("set statement_timeout = 0")
        yield
    finally:
        with suppress(psycopg.Error):  # the connection is lost, and the lock with it
            connection.execute("reset statement_timeout")
            connection.execute(INDEX_UNLOCK)


def _prepare_records(connection: psycopg.Connection) -> None:
    columns = connection.execute(
        "select count(*) from information_schema.columns where table_schema = 'supabase_migrations'"
        " and table_name = 'schema_migrations' and column_name in ('version', 'statements', 'name')"
    ).fetchone()
    if columns != (3,):
        for statement in RECORDS:
            connection.execute(statement.encode())


def _apply(connection: psycopg.Connection, migration: Migration) -> None:
    for number, statement in enumerate(migration.statements, start=1):
        try:
            connection.execute(statement.encode())
        except psycopg.OperationalError:
            raise
        except psycopg.Error as cause:
            first_line = next(line for line in statement.splitlines() if line and not line.startswith("--"))
            raise MigrationError(
                f"Migration {migration.label} failed at statement {number} ({first_line[:80]}): {_sentence(cause)}"
            ) from cause
    _record(connection, migration)


def _record(connection: psycopg.Connection, migration: Migration) -> None:
    connection.execute(RECORD, [migration.version, list(migration.statements), migration.name])


def _sentence(error: psycopg.Error) -> str:
    """The database's message, on one line."""
    return error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
