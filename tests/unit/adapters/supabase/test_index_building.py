"""Building indexes after the schema's transaction: who waits for whom, and what an operator reads when it fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from server.adapters.supabase import migrations
from server.adapters.supabase.migration_files import MigrationError, project_migrations, read_migrations
from server.adapters.supabase.migrations import INDEX_LOCK, INDEX_UNLOCK, apply_migrations

CONCURRENT = [migration for migration in read_migrations(project_migrations()) if migration.is_concurrent]


class Result:
    def __init__(self, *rows: tuple[Any, ...]) -> None:
        self._rows = rows

    def fetchone(self) -> tuple[Any, ...]:
        return self._rows[0]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)


class Database:
    """A connection that records its statements. `recorded`: versions; `failure`: of each `create index`."""

    def __init__(self) -> None:
        self.recorded: list[str] = []
        self.is_locked = False
        self.failure: psycopg.Error | None = None
        self.statements: list[str] = []

    def execute(self, statement: str | bytes, parameters: list[Any] | None = None) -> Result:
        text = statement.decode() if isinstance(statement, bytes) else statement
        self.statements.append(text)
        if "create index" in text and self.failure:
            raise self.failure
        if text == INDEX_LOCK:
            return Result((not self.is_locked,))
        if parameters:
            self.recorded.append(parameters[0])
        return Result(("table",)) if "to_regclass" in text else Result(*((version, None) for version in self.recorded))


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    """Whose other migrations are applied."""
    database = Database()

    @contextmanager
    def connect(_: str) -> Iterator[Database]:
        yield database

    monkeypatch.setattr(migrations, "connect", connect)
    monkeypatch.setattr(migrations, "_apply_pending", lambda *_: [])
    monkeypatch.setattr(migrations, "INDEX_LOCK_SECONDS", 0)
    monkeypatch.setattr(migrations, "INDEX_LOCK_ATTEMPTS", 3)
    return database


def migrate() -> list[str]:
    return apply_migrations("postgresql://unused", project_migrations())


def test_the_lock_is_released_and_settings_are_reset_after_the_building(database: Database) -> None:
    assert migrate() == [migration.label for migration in CONCURRENT]
    assert database.statements[-2:] == ["reset statement_timeout", INDEX_UNLOCK]


def test_a_run_without_a_pending_index_takes_no_lock(database: Database) -> None:
    database.recorded = [migration.version for migration in CONCURRENT]
    database.is_locked = True
    assert migrate() == []
    assert INDEX_LOCK not in database.statements


def test_a_run_does_not_wait_for_ever_for_another_one(database: Database) -> None:
    database.is_locked = True
    with pytest.raises(MigrationError, match=r"^The schema is migrated\. Another run is still building indexes"):
        migrate()
    assert database.statements.count(INDEX_LOCK) == 3
    assert INDEX_UNLOCK not in database.statements, "the other one's lock"


@pytest.mark.parametrize(
    "failure", [psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable, psycopg.OperationalError]
)
def test_a_failed_building_does_not_say_that_nothing_was_changed(
    database: Database, failure: type[psycopg.Error]
) -> None:
    database.failure = failure("out of luck")
    with pytest.raises(MigrationError) as caught:
        migrate()
    assert str(caught.value) == (
        "The schema is migrated, but an index could not be built; the next run builds it: out of luck"
    )
    assert database.statements[-1] == INDEX_UNLOCK
    database.failure = None
    assert migrate() == [migration.label for migration in CONCURRENT]
