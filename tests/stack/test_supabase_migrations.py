"""Migrations of a real PostgreSQL: applied once, recorded, safe in concurrent deploys, and the same as printed SQL."""

import asyncio
import uuid
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from server.adapters.supabase import migrations
from server.adapters.supabase.migration_files import MigrationError, project_migrations, read_migrations, script
from server.adapters.supabase.migrations import apply_migrations
from server.cli.main import main
from tests.stack.schema import empty_project, objects

MIGRATIONS = project_migrations()
NAMES = [migration.label for migration in read_migrations(MIGRATIONS)]
CONCURRENT = [migration.label for migration in read_migrations(MIGRATIONS) if migration.is_concurrent]
IN_ORDER = [*(name for name in NAMES if name not in CONCURRENT), *CONCURRENT]
NUMBERED = [migration for migration in read_migrations(MIGRATIONS) if not migration.is_repeatable]


@pytest.fixture
def dsn(supabase_env: dict[str, str]) -> Iterator[str]:
    """An empty project's database."""
    with empty_project(supabase_env["SUPABASE_DB_URL"]) as address:
        yield address


def recorded(dsn: str) -> list[tuple[str, list[str], str]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "select version, statements, name from supabase_migrations.schema_migrations order by version"
        ).fetchall()


def test_migrations_apply_once_and_are_recorded_as_the_cli_records_them(dsn: str) -> None:
    assert apply_migrations(dsn, MIGRATIONS) == IN_ORDER
    assert apply_migrations(dsn, MIGRATIONS) == []
    assert recorded(dsn) == [(m.version, list(m.statements), m.name) for m in read_migrations(MIGRATIONS)]


async def test_two_deploys_at_once_apply_each_migration_once(dsn: str) -> None:
    applied = await asyncio.gather(*(asyncio.to_thread(apply_migrations, dsn, MIGRATIONS) for _ in range(3)))
    assert sorted(chain.from_iterable(applied)) == NAMES


def test_the_printed_script_does_the_same(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(script(read_migrations(MIGRATIONS)).encode())

    assert apply_migrations(dsn, MIGRATIONS) == []
    assert recorded(dsn) == [(m.version, list(m.statements), m.name) for m in read_migrations(MIGRATIONS)]


def test_a_migration_record_made_by_the_cli_is_continued(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema supabase_migrations")
        connection.execute("create table supabase_migrations.schema_migrations (version text not null primary key)")
        connection.execute("insert into supabase_migrations.schema_migrations values ('20200101000000')")

    assert apply_migrations(dsn, MIGRATIONS) == IN_ORDER
    assert [version for version, _, _ in recorded(dsn)] == [
        "20200101000000",
        *(name.partition("_")[0] for name in NAMES),
    ]


def test_a_failing_migration_is_named_and_its_whole_run_is_rolled_back(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "1_good.sql").write_text("create table good (id int);")
    (tmp_path / "2_bad.sql").write_text("create table half (id int);\n-- why\nselect nonsense;")

    with pytest.raises(MigrationError, match=r'2_bad failed at statement 2 \(select nonsense\): column "nonsense"'):
        apply_migrations(dsn, tmp_path)

    with psycopg.connect(dsn) as connection:
        assert connection.execute("select to_regclass('good'), to_regclass('half')").fetchone() == (None, None)
        assert connection.execute("select to_regclass('supabase_migrations.schema_migrations')").fetchone() == (None,)


def copied(folder: Path) -> Path:
    """The project's migrations in a folder where a test may change them."""
    for file in MIGRATIONS.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def answer(dsn: str, call: str) -> object:
    with psycopg.connect(dsn) as connection:
        return connection.execute(f"select {call}".encode()).fetchone()


def test_a_function_is_replaced_in_place(dsn: str, tmp_path: Path) -> None:
    """Only its file is applied again, once, and its record updated; a release without the change reverts it."""
    apply_migrations(dsn, MIGRATIONS)
    (file,) = copied(tmp_path).glob("9*_sessions.sql")
    file.write_text(file.read_text("utf-8").replace("interval '12 seconds'", "interval '13 seconds'"))

    assert apply_migrations(dsn, tmp_path) == [file.stem]
    assert answer(dsn, "private.lease()::text") == ("00:00:13",)
    assert apply_migrations(dsn, tmp_path) == []
    assert recorded(dsn) == [(m.version, list(m.statements), m.name) for m in read_migrations(tmp_path)]

    assert apply_migrations(dsn, MIGRATIONS) == [file.stem]
    assert answer(dsn, "private.lease()::text") == ("00:00:12",)


def test_a_numbered_file_is_applied_first_and_then_all_functions_again(dsn: str, tmp_path: Path) -> None:
    apply_migrations(dsn, MIGRATIONS)
    before = objects(dsn)
    (copied(tmp_path) / "20990101000000_wider_names.sql").write_text(
        "drop view public.profiles; alter table public.user_profiles alter column name type varchar(200);"
    )

    assert apply_migrations(dsn, tmp_path) == ["20990101000000_wider_names", *NAMES[len(NUMBERED) :]]
    changed = {name for name, definition in objects(dsn).items() if definition != before.get(name)}
    assert changed == {"column user_profiles.name", "column profiles.name"}
    assert set(before) == set(objects(dsn))


def test_a_deleted_file_of_functions_is_removed_from_the_record(dsn: str, tmp_path: Path) -> None:
    apply_migrations(dsn, MIGRATIONS)
    (file,) = copied(tmp_path).glob("9*_audit.sql")
    moved = file.rename(tmp_path / "90000000000099_audits.sql")

    assert apply_migrations(dsn, tmp_path) == [moved.stem]
    assert [version for version, _, _ in recorded(dsn)] == [m.version for m in read_migrations(tmp_path)]


def test_a_migration_yields_to_transactions_that_use_a_table_and_is_retried(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that come after it wait no longer than it does."""
    apply_migrations(dsn, MIGRATIONS)
    (copied(tmp_path) / "20990101000000_more.sql").write_text("alter table public.turns add column more text;")
    before, apply_pending, tries = objects(dsn), migrations._apply_pending, 0
    with psycopg.connect(dsn) as user, monkeypatch.context() as patch:
        user.execute("select from public.turns")
        patch.setattr(migrations, "LOCK_TIMEOUT", "set local lock_timeout = '1ms'")
        with pytest.raises(MigrationError, match="tables are in use, so nothing was changed"):
            apply_migrations(dsn, tmp_path)
        assert objects(dsn) == before

        def third_time_lucky(*arguments: Any) -> Any:
            nonlocal tries
            tries += 1
            if tries == 3:
                user.rollback()
                patch.setattr(migrations, "LOCK_TIMEOUT", "set local lock_timeout = '60s'")
            return apply_pending(*arguments)

        patch.setattr(migrations, "_apply_pending", third_time_lucky)
        assert "20990101000000_more" in apply_migrations(dsn, tmp_path)
    assert tries == 3
    assert "column turns.more" in objects(dsn)


INDEX_BUILDS = """
select count(*) from pg_stat_activity
where datname = current_database() and query like '%%create index concurrently%%' and wait_event_type = 'Lock'
"""


async def test_messages_are_written_while_an_index_is_built(dsn: str) -> None:
    """The building waits for a transaction that has written before it began; nobody waits for the building."""
    apply_migrations(dsn, MIGRATIONS)
    user_id = str(uuid.uuid4())
    accept = "select public.accept_turn(%s, %s, 'hello', 'hash', 'enqueue', 'me', true, 8, false) ->> 'outcome'"
    with psycopg.connect(dsn, autocommit=True) as writer, psycopg.connect(dsn) as earlier:
        writer.execute("insert into auth.users (id, email) values (%s, 'ann@example.com')", [user_id])
        writer.execute("drop index public.messages_words")
        writer.execute("delete from supabase_migrations.schema_migrations where name = 'message_words'")
        earlier.execute("update public.messages set content = content")
        async with asyncio.timeout(300), asyncio.TaskGroup() as tasks:
            applied = tasks.create_task(asyncio.to_thread(apply_migrations, dsn, MIGRATIONS))
            while writer.execute(INDEX_BUILDS.encode()).fetchone() != (1,):
                await asyncio.sleep(0)
            writer.execute("set lock_timeout = '10s'")
            assert writer.execute(accept, [user_id, "one"]).fetchone() == ("ok",)
            earlier.commit()
        assert applied.result() == CONCURRENT
        assert answer(dsn, f"jsonb_array_length(public.search_messages('{user_id}', 'hel', null, null, 9))") == (1,)


def test_an_index_whose_building_was_interrupted_is_built_by_the_next_run(dsn: str) -> None:
    """An interrupted building leaves an index that is maintained, but not used."""
    apply_migrations(dsn, MIGRATIONS)
    before = objects(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("delete from supabase_migrations.schema_migrations where name = 'message_words'")
        connection.execute("update pg_index set indisvalid = false where indexrelid = 'messages_words'::regclass")
    assert objects(dsn) != before

    assert apply_migrations(dsn, MIGRATIONS) == CONCURRENT

    assert objects(dsn) == before


@pytest.fixture
def hosted(dsn: str) -> Iterator[str]:
    """A database like a hosted project's: its owner is not a superuser, and new objects are open to every client."""
    role = sql.Identifier(f"owner_{uuid.uuid4().hex}")
    with psycopg.connect(dsn, autocommit=True) as cluster:
        name = sql.Identifier(cluster.info.dbname)
        for statement in (
            "create role {role} login password 'x' nosuperuser bypassrls",
            "grant anon, authenticated, service_role to {role}",
            "grant create on database {name} to {role}",
            "alter schema public owner to {role}",
            "grant usage on schema public, auth to anon, authenticated, service_role, {role}",
            "grant all on auth.users, auth.sessions to {role}",
            "alter default privileges for role {role} in schema public"
            " grant all on tables to anon, authenticated, service_role",
            "alter default privileges for role {role} in schema public"
            " grant execute on functions to anon, authenticated, service_role",
        ):
            cluster.execute(sql.SQL(statement).format(role=role, name=name))
        login = f"postgresql://{role.as_string().strip(chr(34))}:x@"
        yield login + dsn.rpartition("@")[2]
        cluster.execute(sql.SQL("reassign owned by {role} to current_user").format(role=role))
        cluster.execute(sql.SQL("drop owned by {role} cascade; drop role {role}").format(role=role))


def test_a_hosted_projects_open_defaults_open_nothing_of_ours(dsn: str, hosted: str) -> None:
    assert apply_migrations(hosted, MIGRATIONS) == IN_ORDER

    user_id = str(uuid.uuid4())
    accept = "select public.accept_turn(%s, 'id', 'hello', 'hash', 'enqueue', 'me', true, 8, false) ->> 'outcome'"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("insert into auth.users (id, email) values (%s, 'ann@example.com')", [user_id])
        connection.execute("set role service_role")
        assert connection.execute(accept, [user_id]).fetchone() == ("ok",)
        for role in ("anon", "authenticated"):
            connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
            for attempt in (
                "select litellm_key from public.user_profiles",
                "select run_id from public.turns",
                "select * from public.sessions",
                "truncate public.messages",
                "delete from public.usage_metrics where true",
                "select public.get_turn(null, null)",
                "select private.lease()",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(attempt)


def test_the_command_reports_what_it_did(dsn: str) -> None:
    first = CliRunner().invoke(main, ["migrate", "--db-url", dsn])
    again = CliRunner().invoke(main, ["migrate"], env={"SUPABASE_DB_URL": dsn})

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert f"applied {NAMES[0]}" in first.output
    assert "Nothing to do" in again.output


def test_an_unreachable_database_is_one_sentence_without_the_password() -> None:
    result = CliRunner().invoke(main, ["migrate", "--db-url", "postgresql://user:s3cret@127.0.0.1:9/postgres"])

    assert result.exit_code == 1
    assert "The database did not answer" in result.output
    assert "s3cret" not in result.output
    assert "Traceback" not in result.output
