"""The schema, object by object: the same for every way to create it, and compatible with calls of the last release."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from server.adapters.supabase.baseline import BASELINE, REPLACED
from server.adapters.supabase.migration_files import MigrationError, project_migrations, read_migrations
from server.adapters.supabase.migrations import apply_migrations
from tests.stack.running_stack import RunningStack
from tests.stack.schema import empty_project, identities, last_release, objects, recorded_versions
from tests.supabase_cli import SupabaseCli, install, supabase_cli

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
        """An empty project that `chat migrate` has migrated."""
        dsn = self.empty()
        apply_migrations(dsn, MIGRATIONS)
        return dsn

    def released(self) -> str:
        """A project with the schema of the last release."""
        dsn = self.empty()
        with last_release() as folder:
            apply_migrations(dsn, folder)
        return dsn


def differences(first: str, second: str) -> dict[str, tuple[object, object]]:
    """The objects that differ between the databases."""
    ours, theirs = objects(first), objects(second)
    return {name: (ours.get(name), theirs.get(name)) for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)}


CHANGES = {
    "relation more": "create table public.more (id int)",
    "column turns.number": "alter table public.turns alter column number type numeric",
    "column turns.attempt": "alter table public.turns alter column attempt set default 2",
    "column turns.content_hash": "alter table public.turns alter column content_hash drop not null",
    "column turns.run_id": "grant select (run_id) on public.turns to authenticated",
    "column turns.carried_by": "comment on column public.turns.carried_by is 'something'",
    "relation attempts": "grant select on public.attempts to anon",
    "relation turns": "alter table public.turns disable row level security",
    "relation profiles": "alter view public.profiles reset (security_invoker)",
    "policy turns.turns_own": "alter policy turns_own on public.turns using (true)",
    "constraint turns.turns_status_check": "alter table public.turns drop constraint turns_status_check",
    "constraint messages.messages_turn_id_fkey": "alter table public.messages drop constraint messages_turn_id_fkey",
    "index turns_open": "drop index public.turns_open",
    "view usage_totals": "create or replace view public.usage_totals as select user_id, 1::bigint as total_messages,"
    " 1::bigint as total_tokens, ''::text as total_cost from public.usage_metrics",
    "function private.lease()": "alter function private.lease() volatile",
    "function get_turn(uuid,uuid)": "alter function public.get_turn security invoker",
    "function open_turns(uuid)": "alter function public.open_turns reset search_path",
    "function owned_work(text)": "grant execute on function public.owned_work to anon",
    "function private.specified_tokens(numeric)": "create or replace function"
    " private.specified_tokens(p_tokens numeric) returns integer language sql immutable strict"
    " set search_path = '' as 'select 1'",
    "trigger ledger.ledger_changed": "alter table public.ledger disable trigger ledger_changed",
    "schema private": "grant usage on schema private to anon",
    "type mood": "create type public.mood as enum ('good')",
    "sequence numbers": "create sequence public.numbers",
    "publication changes": "create publication changes for table public.turns",
}


def test_the_comparison_sees_every_kind_of_change(databases: Databases) -> None:
    dsn = databases.migrated()
    before = objects(dsn)
    with psycopg.connect(dsn) as connection:
        for statement in CHANGES.values():
            connection.execute(statement.encode())
        connection.execute("alter default privileges in schema public grant select on tables to anon")
    after = objects(dsn)
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert set(CHANGES) - changed == set()
    assert any(name.startswith("default access") for name in changed)


def test_the_last_releases_database_takes_over_the_tables_without_a_change(
    databases: Databases, tmp_path: Path
) -> None:
    """The new files are recorded in place of the old ones; nothing is dropped, rewritten or created again."""
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
    """So an object that a file no longer creates has been dropped by a numbered file."""
    upgraded, fresh = databases.released(), databases.migrated()
    apply_migrations(upgraded, MIGRATIONS)
    assert differences(upgraded, fresh) == {}
    assert recorded_versions(upgraded) == VERSIONS
    assert apply_migrations(upgraded, MIGRATIONS) == []


@pytest.mark.parametrize("missing", [1, 7, 17])
def test_for_an_older_database_the_release_to_deploy_first_is_named(
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


@pytest.fixture(scope="module")
async def cli_programs(stack: RunningStack) -> tuple[Path, Path]:
    return await install(stack.data_dir)


@pytest.fixture
def cli(cli_programs: tuple[Path, Path]) -> Iterator[SupabaseCli]:
    with supabase_cli(*cli_programs) as ready:
        yield ready


def test_supabases_cli_gives_an_empty_project_the_same_schema(databases: Databases, cli: SupabaseCli) -> None:
    pushed, fresh = databases.empty(), databases.migrated()
    code, output = cli.push(pushed)
    assert code == 0, output
    assert differences(pushed, fresh) == {}
    assert recorded_versions(pushed) == VERSIONS
    assert apply_migrations(pushed, MIGRATIONS) == []


def test_supabases_cli_finds_nothing_missing_after_a_migration(databases: Databases, cli: SupabaseCli) -> None:
    """In a new project, and in one with the schema of the last release."""
    code, output = cli.push(databases.migrated())
    assert (code, "Remote database is up to date" in output) == (0, True), output
    upgraded = databases.released()
    apply_migrations(upgraded, MIGRATIONS)
    code, output = cli.push(upgraded)
    assert (code, "Remote database is up to date" in output) == (0, True), output


def test_supabases_cli_leaves_a_new_releases_tables_to_chat_migrate(databases: Databases, cli: SupabaseCli) -> None:
    dsn = databases.migrated()
    (cli.migrations / "20990101000000_more.sql").write_text("create table public.more (id int);")
    code, output = cli.push(dsn)
    assert (code, "inserted before the last migration" in output) == (1, True), output
    assert apply_migrations(dsn, cli.migrations)[0] == "20990101000000_more"
    code, output = cli.push(dsn)
    assert (code, "Remote database is up to date" in output) == (0, True), output


def signatures(dsn: str) -> list[Signature]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(SIGNATURES.encode()).fetchall()


def answers(call: Signature, function: Signature, given: int) -> bool:
    """Whether the function accepts a call of the other one with its first `given` arguments, by their names."""
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
    """Its instance serves while this release's migration runs, so a function whose arguments or result change must
    stay."""
    released, now = signatures(databases.released()), signatures(databases.migrated())
    assert len(released) > 30
    for call in released:
        for given in range(len(call[2]) - call[4], len(call[2]) + 1):
            found = [function[0] for function in now if answers(call, function, given)]
            assert len(found) == 1, f"{call[0]} called with {call[2][:given]}: {found or 'no function answers'}"


def test_a_function_that_breaks_calls_of_the_last_release_is_found() -> None:
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


def test_only_the_service_role_may_call_functions_and_no_role_the_private_ones(databases: Databases) -> None:
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
