"""Migrates LiteLLM's database: applies the SQL migrations of its wheel, and records them as Prisma does.

Uses only the given database. psycopg, since Prisma's migration engine is not in a package registry."""

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

import psycopg

_CREATE_TABLE = """
create table if not exists _prisma_migrations (
    id                  varchar(36) primary key,
    checksum            varchar(64) not null,
    finished_at         timestamptz,
    migration_name      varchar(255) not null,
    logs                text,
    rolled_back_at      timestamptz,
    started_at          timestamptz not null default now(),
    applied_steps_count integer not null default 0
)
"""
_DONE = "select migration_name from _prisma_migrations where finished_at is not null and rolled_back_at is null"
_RECORD = """
insert into _prisma_migrations (id, checksum, finished_at, migration_name, applied_steps_count)
values (%s, %s, now(), %s, 1)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration of LiteLLM's schema."""

    name: str
    sql: bytes

    @property
    def outside_transaction(self) -> bool:
        """Whether it builds an index concurrently, which PostgreSQL allows only outside a transaction.

        LiteLLM's migrations of this kind can be repeated."""
        statements = (line for line in self.sql.decode().splitlines() if not line.lstrip().startswith("--"))
        return " index concurrently " in " ".join(statements).lower()


def read_migrations(folder: Path) -> list[Migration]:
    """The migrations in `folder` (`<name>/migration.sql`), in the order of their application."""
    return [Migration(file.parent.name, file.read_bytes()) for file in sorted(folder.glob("*/migration.sql"))]


async def apply_litellm_migrations(dsn: str, folder: Path) -> list[str]:
    """Apply the migrations in `folder` that the database lacks. Returns their names, in order.

    Each is applied and recorded in one transaction, so that a kill leaves no migration half applied. Raises
    psycopg.Error."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=3) as connection:
        await connection.execute(_CREATE_TABLE)
        done = {name for (name,) in await (await connection.execute(_DONE)).fetchall()}
        missing = [migration for migration in read_migrations(folder) if migration.name not in done]
        for migration in missing:
            if migration.outside_transaction:
                await _apply(connection, migration)
            else:
                async with connection.transaction():
                    await _apply(connection, migration)
    return [migration.name for migration in missing]


async def _apply(connection: psycopg.AsyncConnection, migration: Migration) -> None:
    await connection.execute(migration.sql)
    checksum = hashlib.sha256(migration.sql).hexdigest()
    await connection.execute(_RECORD, (str(uuid.uuid4()), checksum, migration.name))
