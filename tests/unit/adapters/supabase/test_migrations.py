"""Reading migrations: the end of each statement, and errors of a folder."""

import re
from collections import Counter
from pathlib import Path

import pytest

from server.adapters.supabase.migration_files import (
    Migration,
    MigrationError,
    project_migrations,
    read_migrations,
    script,
    split_statements,
)
from server.adapters.supabase.migrations import Recorded, pending_of


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("select 1; select 2", ["select 1", "select 2"]),
        ("select 1;;\n ; ", ["select 1"]),
        ("", []),
        ("-- only a comment; nothing else\n/* nor; this */", []),
        ("select ';'; select 'it''s; fine'", ["select ';'", "select 'it''s; fine'"]),
        (r"select E'a\';b'; select 2", [r"select E'a\';b'", "select 2"]),
        ('select 1 as "a;""b"; select 2', ['select 1 as "a;""b"', "select 2"]),
        ("do $$ begin; end; $$; select 2", ["do $$ begin; end; $$", "select 2"]),
        ("do $a$ x; $$ y; $$ $a$; select 2", ["do $a$ x; $$ y; $$ $a$", "select 2"]),
        ("select $1; select a$b$c; select 2", ["select $1", "select a$b$c", "select 2"]),
        (
            "-- first; comment\nselect 1; /* second; */ select 2;",
            ["-- first; comment\nselect 1", "/* second; */ select 2"],
        ),
        ("select 'a -- b'; select 2 -- end; of it", ["select 'a -- b'", "select 2 -- end; of it"]),
    ],
)
def test_statements_end_at_semicolons_that_are_not_quoted(sql: str, statements: list[str]) -> None:
    assert list(split_statements(sql)) == statements


def test_every_statement_of_our_migrations_is_complete() -> None:
    for migration in read_migrations(project_migrations()):
        assert migration.statements
        for statement in migration.statements:
            assert statement.count("$$") in (0, 2), statement


NUMBERED = [migration for migration in read_migrations(project_migrations()) if not migration.is_repeatable]
REPEATABLE_ONES = [migration for migration in read_migrations(project_migrations()) if migration.is_repeatable]
FUNCTION = re.compile(r"^create or replace function ([\w.]+\([^$]*?\))\s*returns ([^$]*)\$\$", re.MULTILINE)
COMMENTS = re.compile(r"^\s*--.*\n", re.MULTILINE)


def code(statement: str) -> str:
    return COMMENTS.sub("", statement).strip()


def test_each_function_is_defined_once() -> None:
    found = Counter(
        " ".join(name.split())
        for migration in REPEATABLE_ONES
        for statement in migration.statements
        for name, _ in FUNCTION.findall(statement)
    )
    assert len(found) > 60
    assert set(found.values()) == {1}


@pytest.mark.parametrize("migration", REPEATABLE_ONES, ids=lambda migration: str(migration.name))
def test_a_repeatable_file_may_be_applied_again(migration: Migration) -> None:
    """No statement fails or has another effect the second time, and all functions set their search_path."""
    for statement in map(code, migration.statements):
        assert statement.startswith(
            (
                "create or replace function ",
                "create or replace view ",
                "create or replace trigger ",
                "revoke ",
                "grant ",
            )
        ), statement
        if statement.startswith("create or replace function"):
            ((name, attributes),) = FUNCTION.findall(statement)
            assert "set search_path = ''" in attributes, name
            is_definer, is_user = (
                "security definer" in attributes,
                "set_config('role', 'authenticated', true)" in statement,
            )
            assert (is_definer or is_user) == (name.startswith("public.") or "returns trigger" in statement)
            assert not (is_definer and is_user), name


@pytest.mark.parametrize("migration", NUMBERED, ids=lambda migration: str(migration.name))
def test_numbered_files_contain_no_statements_of_repeatable_ones(migration: Migration) -> None:
    """They call no function of ours either, since its definition would depend on when the file is applied."""
    for statement in map(code, migration.statements):
        assert not re.match(r"create (or replace )?(function|view|trigger)\b", statement), statement
        assert statement.startswith("drop function if exists ") or not re.search(r"\bprivate\.\w+\(", statement)


ONE, TWO = Migration("20260101000000", "one", ("a", "b")), Migration("20260102000000", "two", ("c",))
SESSIONS, TURNS = Migration("90000000000001", "sessions", ("d", "e")), Migration("90000000000002", "turns", ("f",))
ALL_APPLIED = {migration.version: list(migration.statements) for migration in (ONE, TWO, SESSIONS, TURNS)}


@pytest.mark.parametrize(
    ("recorded", "pending"),
    [
        (ALL_APPLIED, []),
        ({}, [ONE, TWO, SESSIONS, TURNS]),
        (ALL_APPLIED | {SESSIONS.version: ["d"]}, [SESSIONS]),
        (ALL_APPLIED | {TURNS.version: None}, [TURNS]),  # recorded by a tool that does not store statements
        (ALL_APPLIED | {ONE.version: ["other"]}, []),
        ({ONE.version: None} | {m.version: list(m.statements) for m in (SESSIONS, TURNS)}, [TWO, SESSIONS, TURNS]),
        (ALL_APPLIED | {"20200101000000": ["not ours"]}, []),
    ],
)
def test_new_numbered_and_changed_repeatable_files_are_pending(recorded: Recorded, pending: list[Migration]) -> None:
    assert pending_of([ONE, TWO, SESSIONS, TURNS], recorded) == pending


def test_a_wheels_migrations_are_found_beside_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project_migrations() == Path(__file__).parents[4] / "supabase" / "migrations"
    (tmp_path / "migrations").mkdir()
    monkeypatch.setattr("server.adapters.supabase.migration_files.files", {"server": tmp_path}.__getitem__)
    assert project_migrations() == tmp_path / "migrations"


def test_versions_are_in_order_and_named(tmp_path: Path) -> None:
    for name in ("20260102000000_second.sql", "20260101000000_first.sql", "readme.md", "notes.sql"):
        (tmp_path / name).write_text("select 1;")
    assert read_migrations(tmp_path) == [
        Migration("20260101000000", "first", ("select 1",)),
        Migration("20260102000000", "second", ("select 1",)),
    ]


def test_one_version_twice_is_an_error(tmp_path: Path) -> None:
    for name in ("1_a.sql", "1_b.sql"):
        (tmp_path / name).write_text("select 1;")
    with pytest.raises(MigrationError, match="the version 1: a, b"):
        read_migrations(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="no folder of migrations"):
        read_migrations(tmp_path / "nowhere")


def test_a_file_that_builds_indexes_concurrently_has_nothing_else() -> None:
    """Its statements are not rolled back together. It can be applied again after any of them."""
    concurrent = [migration for migration in NUMBERED + REPEATABLE_ONES if migration.is_concurrent]
    assert [migration.name for migration in concurrent] == ["message_words"]
    for migration in concurrent:
        drop, create = map(code, migration.statements)
        name = re.fullmatch(r"drop index concurrently if exists public\.(\w+)", drop)
        assert name, drop
        assert create.startswith(f"create index concurrently {name[1]} on public."), create


def test_the_script_builds_indexes_in_its_transaction_and_records_the_statement_as_it_is() -> None:
    statement = "-- create it\ncreate index concurrently i on t (c)"
    printed = script([Migration("1", "it", (statement,))])
    assert "begin;\n\n-- create it\ncreate index i on t (c);" in printed
    assert f"array['{statement}']" in printed


def test_the_script_records_statements_as_literals() -> None:
    printed = script([Migration("1", "it", ("select 'it''s'",))])
    assert "values\n('1', array['select ''it''''s''']::text[], 'it');" in printed
    assert printed.count("begin;") == printed.count("commit;") == 1
