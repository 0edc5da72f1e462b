"""Adopts a database that an older release has migrated, whose eighteen files the current ones replace."""

from collections.abc import Collection, Sequence
from typing import Final

import psycopg

from server.adapters.supabase.migration_files import Migration, MigrationError

REPLACED: Final = (
    "20261101000000", "20261101000100", "20261101000200", "20261101000300", "20261101000400", "20261101000500",
    "20261101000600", "20261126000000", "20261127000000", "20261127000100", "20261127000200", "20261127000300",
    "20261128000000", "20261128000001", "20261128000002", "20261128000100", "20261128000200", "20261128000400",
)  # fmt: skip
"""The versions of the older releases, whose files no longer exist."""

BASELINE: Final = ("20261129000000", "20261129000100", "20261129000200")
"""The numbered files that create the same tables as the replaced ones."""


def adopt_baseline(
    connection: psycopg.Connection, migrations: Sequence[Migration], recorded: Collection[str]
) -> list[Migration]:
    """Delete the records of the replaced files, if there are any, and return the migrations to record instead.

    Raises MigrationError if only some of them were applied.
    """
    found = [version for version in REPLACED if version in recorded]
    if not found:
        return []
    if len(found) < len(REPLACED):
        raise MigrationError(
            f"The database is older than this release can migrate: its last migration is {found[-1]}. First deploy the"
            f" release whose last migration is {REPLACED[-1]}_outcomes (commit f1cc84f) or run its `chat migrate`, then"
            " this one. Nothing was changed."
        )
    connection.execute("delete from supabase_migrations.schema_migrations where version = any(%s)", [found])
    return [migration for migration in migrations if migration.version in BASELINE]
