"""Reading migrations: where a statement ends, and what is wrong with a folder."""

from pathlib import Path

import pytest

from server.supabase_adapter.migrations import (
    Migration,
    MigrationError,
    project_migrations,
    read_migrations,
    script,
    split_statements,
)


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


def test_every_statement_of_ours_is_whole() -> None:
    for migration in read_migrations(project_migrations()):
        assert migration.statements
        for statement in migration.statements:
            assert statement.count("$$") in (0, 2), statement


def test_a_wheels_migrations_are_found_beside_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project_migrations() == Path(__file__).parents[3] / "supabase" / "migrations"
    (tmp_path / "migrations").mkdir()
    monkeypatch.setattr("server.supabase_adapter.migrations.files", {"server": tmp_path}.__getitem__)
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


def test_the_script_records_statements_as_literals() -> None:
    printed = script([Migration("1", "it", ("select 'it''s'",))])
    assert "values\n('1', array['select ''it''''s''']::text[], 'it');" in printed
    assert printed.count("begin;") == printed.count("commit;") == 1
