"""Migrations of LiteLLM's database, on the stack's PostgreSQL: each is applied whole or not at all, and only once."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from server.stack.litellm_migrations import apply_litellm_migrations
from tests.stack.running_stack import RunningStack

DATABASE = "litellm_migrations_test"


@pytest.fixture
async def url(stack: RunningStack) -> AsyncIterator[str]:
    """An empty database."""
    owner = stack.env["SUPABASE_DB_URL"]
    async with await psycopg.AsyncConnection.connect(owner, autocommit=True) as connection:
        await connection.execute(f"drop database if exists {DATABASE} with (force)".encode())
        await connection.execute(f"create database {DATABASE}".encode())
        yield urlunsplit(urlsplit(owner)._replace(path=f"/{DATABASE}"))
        await connection.execute(f"drop database {DATABASE} with (force)".encode())


def write(folder: Path, name: str, sql: str) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "migration.sql").write_text(sql)


async def tables(url: str) -> set[str]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        found = await connection.execute("select relname from pg_class where relname in ('one', 'two', 'three', 'idx')")
        return {name for (name,) in await found.fetchall()}


async def test_a_failed_migration_is_rolled_back_and_applied_once_corrected(url: str, tmp_path: Path) -> None:
    write(tmp_path, "1", "create table one (a int)")
    write(tmp_path, "2", "create table two (a int); create table three (a nonsense)")
    with pytest.raises(psycopg.Error, match="nonsense"):
        await apply_litellm_migrations(url, tmp_path)
    assert await tables(url) == {"one"}

    write(tmp_path, "2", "create table two (a int); create table three (a int)")

    assert await apply_litellm_migrations(url, tmp_path) == ["2"]
    assert await tables(url) == {"one", "two", "three"}


async def test_an_index_built_concurrently_is_built_once(url: str, tmp_path: Path) -> None:
    write(tmp_path, "1", "create table one (a int)")
    write(tmp_path, "2", "-- LiteLLM's way\nCREATE INDEX CONCURRENTLY IF NOT EXISTS idx ON one (a);")

    assert await apply_litellm_migrations(url, tmp_path) == ["1", "2"]
    assert await apply_litellm_migrations(url, tmp_path) == []
    assert await tables(url) == {"one", "idx"}


async def test_what_is_recorded_is_what_prismas_own_tools_expect(url: str, tmp_path: Path) -> None:
    write(tmp_path, "1", "create table one (a int)")
    await apply_litellm_migrations(url, tmp_path)

    async with await psycopg.AsyncConnection.connect(url) as connection:
        query = "select migration_name, checksum, applied_steps_count, finished_at is null from _prisma_migrations"
        rows = await (await connection.execute(query)).fetchall()

    assert rows == [("1", hashlib.sha256(b"create table one (a int)").hexdigest(), 1, False)]
