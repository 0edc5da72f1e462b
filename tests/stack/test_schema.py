"""The schema, object by object: the same however a database came to it, and as the last release's code calls it."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from server.supabase_adapter.baseline import BASELINE, REPLACED
from server.supabase_adapter.migration_files import MigrationError, project_migrations, read_migrations
from server.supabase_adapter.migrations import apply_migrations
from tests.stack.schema import empty_project, identities, last_release, objects, recorded_versions

MIGRATIONS = project_migrations()
VERSIONS = [migration.version for migration in read_migrations(MIGRATIONS)]
SIGNATURES = """
select p.oid::regprocedure::text, proname, coalesce(proargnames, '{}'),
  string_to_array(oidvectortypes(proargtypes), ', '), pronargdefaults, pg_get_function_result(p.oid)
from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname = 'public'
"""

Signature = tuple[str, str, list[str], list[str], int, str]


@pytest.fixture
def databases(supabase_env: dict[str, str]) -> Iterator["Databases"]:
    with ExitStack() as open_ones:
        yield Databases(supabase_env["SUPABASE_DB_URL"], open_ones)


class Databases:
    """Makes empty projects, which are dropped when the test ends."""

    def __init__(self, url: str, open_ones: ExitStack) -> None:
        self._url = url
        self._open = open_ones

    def empty(self) -> str:
        return self._open.enter_context(empty_project(self._url))

    def migrated(self) -> str:
        """One that `chat migrate` has made from nothing."""
        dsn = self.empty()
        apply_migrations(dsn, MIGRATIONS)
        return dsn

    def released(self) -> str:
        """One as the last release has left it."""
        dsn = self.empty()
        with last_release() as folder:
            apply_migrations(dsn, folder)
        return dsn


def differences(first: str, second: str) -> dict[str, tuple[object, object]]:
    """The objects that are not the same in both databases."""
    ours, theirs = objects(first), objects(second)
    return {name: (ours.get(name), theirs.get(name)) for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)}


def test_the_last_releases_database_takes_over_the_tables_without_a_change(
    databases: Databases, tmp_path: Path
) -> None:
    """The new files are recorded in place of the old ones; nothing is dropped, rewritten or made anew."""
    upgraded = databases.released()
    before, same = objects(upgraded), identities(upgraded)
    assert recorded_versions(upgraded) == sorted(REPLACED)
    for name in ("column turns.reason", "policy turns.turns_own", "trigger ledger.ledger_changed", "view profiles"):
        assert name in before
    for file in MIGRATIONS.iterdir():
        if file.name.startswith(BASELINE):
            (tmp_path / file.name).write_bytes(file.read_bytes())

    assert apply_migrations(upgraded, tmp_path) == []

    assert (objects(upgraded), identities(upgraded)) == (before, same)
    assert recorded_versions(upgraded) == list(BASELINE)


def test_the_last_releases_database_becomes_what_an_empty_project_becomes(databases: Databases) -> None:
    """So whatever a file no longer creates has been dropped by a numbered one."""
    upgraded, fresh = databases.released(), databases.migrated()
    apply_migrations(upgraded, MIGRATIONS)
    assert differences(upgraded, fresh) == {}
    assert recorded_versions(upgraded) == VERSIONS
    assert apply_migrations(upgraded, MIGRATIONS) == []


@pytest.mark.parametrize("missing", [1, 7, 17])
def test_an_older_database_is_told_which_release_to_deploy_first(
    databases: Databases, tmp_path: Path, missing: int
) -> None:
    older = databases.empty()
    with last_release() as folder:
        for file in sorted(folder.iterdir())[:-missing]:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    apply_migrations(older, tmp_path)
    before, records = objects(older), recorded_versions(older)

    with pytest.raises(MigrationError, match="First deploy the release whose last migration is 20261128000400_"):
        apply_migrations(older, MIGRATIONS)

    assert (objects(older), recorded_versions(older)) == (before, records)


def push(dsn: str) -> None:
    """As `supabase db push` does it: the files in the order of their names, each in a transaction with its record."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema supabase_migrations")
        connection.execute(
            "create table supabase_migrations.schema_migrations"
            " (version text primary key, statements text[], name text)"
        )
        for file in sorted(MIGRATIONS.iterdir(), key=lambda entry: entry.name):
            version, _, name = file.name.removesuffix(".sql").partition("_")
            connection.execute("reset all")
            with connection.transaction():
                connection.execute(file.read_bytes())
                connection.execute(
                    "insert into supabase_migrations.schema_migrations values (%s, %s, %s)", [version, [name], name]
                )


def test_supabases_cli_gives_an_empty_project_the_same_schema(databases: Databases) -> None:
    pushed, fresh = databases.empty(), databases.migrated()
    push(pushed)
    assert differences(pushed, fresh) == {}
    apply_migrations(pushed, MIGRATIONS)
    assert differences(pushed, fresh) == {}
    assert recorded_versions(pushed) == VERSIONS


def test_supabases_cli_finds_no_file_without_a_record_and_no_record_without_a_file(databases: Databases) -> None:
    files = sorted(file.name.partition("_")[0] for file in MIGRATIONS.iterdir())
    assert recorded_versions(databases.migrated()) == files


def signatures(dsn: str) -> list[Signature]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(SIGNATURES.encode()).fetchall()


def answers(call: Signature, function: Signature, given: int) -> bool:
    """Whether the function takes a call of the other one with its first `given` arguments, by their names."""
    _, name, names, types, defaults, result = function
    asked = dict(zip(call[2][:given], call[3], strict=False))
    required = names[: len(names) - defaults]
    return (
        name == call[1]
        and result == call[5]
        and set(required) <= set(asked) <= set(names)
        and all(types[names.index(argument)] == kind for argument, kind in asked.items())
    )


def test_every_call_of_the_last_release_has_exactly_one_function_that_answers_it(databases: Databases) -> None:
    """Its instance serves while this release's migration runs. A function whose arguments or result change stays."""
    released, now = signatures(databases.released()), signatures(databases.migrated())
    assert len(released) > 30
    for call in released:
        for given in range(len(call[2]) - call[4], len(call[2]) + 1):
            found = [function[0] for function in now if answers(call, function, given)]
            assert len(found) == 1, f"{call[0]} called with {call[2][:given]}: {found or 'no function answers'}"


def test_a_function_that_is_in_the_way_of_its_predecessors_callers_is_found() -> None:
    old = ("f(uuid, text)", "f", ["p_user_id", "p_owner"], ["uuid", "text"], 0, "jsonb")
    beside = ("f(uuid, text, bigint)", "f", [*old[2], "p_head"], [*old[3], "bigint"], 0, "jsonb")
    for function, given, expected in (
        (old, 2, True),
        (beside, 2, False),
        ((*beside[:4], 1, "jsonb"), 2, True),  # with a default: both would answer
        ((*old[:5], "text"), 2, False),
        ((*old[:3], ["uuid", "integer"], 0, "jsonb"), 2, False),
        ((*old[:2], ["p_user", "p_owner"], *old[3:]), 2, False),
    ):
        assert answers(old, function, given) is expected, function


def test_a_numbered_file_of_the_last_release_is_never_changed() -> None:
    now = {migration.version: migration for migration in read_migrations(MIGRATIONS)}
    with last_release() as folder:
        released = [m for m in read_migrations(folder) if not m.is_repeatable and m.version not in REPLACED]
    assert [now[m.version] for m in released] == released
    assert set(BASELINE) <= set(now)


def test_the_service_role_alone_may_call_functions_and_nobody_the_private_ones(databases: Databases) -> None:
    with psycopg.connect(databases.migrated()) as connection:
        callers = connection.execute(
            "select nspname, proname, array_agg(rolname::text)"
            " from pg_roles, pg_proc p join pg_namespace n on n.oid = pronamespace"
            " where nspname in ('public', 'private') and prorettype <> 'trigger'::regtype"
            " and rolname in ('anon', 'authenticated', 'service_role')"
            " and has_function_privilege(rolname, p.oid, 'execute') and has_schema_privilege(rolname, n.oid, 'usage')"
            " group by p.oid, 1, 2"
        ).fetchall()
        total = connection.execute(
            "select count(*) from pg_proc where pronamespace = 'public'::regnamespace"
        ).fetchone()
    assert total == (len(callers),)
    assert {(schema, *roles) for schema, _, roles in callers} == {("public", "service_role")}
