"""Row level security and grants in SQL, for every table, policy, column and function, generated from the catalog.

Each test runs in the tests' project and in one with a hosted project's default privileges, where everything new is open
to every client until a migration closes it. What users may read is in `rls.py`; PostgREST is asked in `test_rls.py`.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing

import psycopg
import pytest
from psycopg import sql

from tests.stack.rls import HIDDEN, READABLE, RELATIONS
from tests.stack.rls_scene import Database, Pair, Role, as_hosted, columns, functions, make_pair
from tests.stack.supabase_users import client_of

CLIENTS: tuple[Role, ...] = ("anon", "authenticated")


@pytest.fixture(scope="module")
async def pair(supabase_env: dict[str, str]) -> AsyncIterator[Pair]:
    async with aclosing(client_of(supabase_env)) as client:
        yield await make_pair(client)


@pytest.fixture(scope="module", params=["local", "hosted"])
def database(request: pytest.FixtureRequest, supabase_env: dict[str, str], pair: Pair) -> Iterator[Database]:
    assert pair, "its rows are copied"
    with ExitStack() as opened:
        dsn = supabase_env["SUPABASE_DB_URL"]
        yield Database(dsn if request.param == "local" else opened.enter_context(as_hosted(dsn)), opened)


def table(name: str) -> sql.Identifier:
    return sql.Identifier("public", name)


def refused(
    database: Database, role: Role, user_id: str | None, query: sql.SQL | sql.Composed, *, or_impossible: bool = False
) -> None:
    errors = psycopg.errors
    impossible = (errors.WrongObjectType, errors.ObjectNotInPrerequisiteState, errors.GeneratedAlways)
    with pytest.raises((errors.InsufficientPrivilege, *(impossible if or_impossible else ()))):
        database.ask(role, user_id, query)


def test_every_table_and_column_has_a_row_in_rls(database: Database) -> None:
    """If this fails for a new table or column, say in `rls.py` whether users may read it."""
    expected = {name: {*row.readable, *row.hidden} for name, row in READABLE.items()}
    found = columns(database.dsn)
    assert set(found) == set(RELATIONS)
    assert {name: set(found[name]) for name in READABLE} == expected


@pytest.mark.parametrize("name", READABLE)
def test_own_rows_are_read_and_foreign_ones_are_not(database: Database, pair: Pair, name: str) -> None:
    row, ann, ben = READABLE[name], pair.ann.user_id, pair.ben.user_id
    listed = sql.SQL(", ").join(map(sql.Identifier, row.readable))
    owners = sql.SQL("select {}::text, {} from {}").format(sql.Identifier(row.owner), listed, table(name))
    for reader in (ann, ben):
        assert {owner for owner, *_ in database.ask("authenticated", reader, owners)} == {reader}
    of_another = sql.SQL("select {} from {} where {} = {}").format(listed, table(name), sql.Identifier(row.owner), ben)
    assert database.ask("authenticated", ann, of_another) == []
    assert database.ask("authenticated", None, owners) == []
    refused(database, "anon", ann, owners)


@pytest.mark.parametrize("name", RELATIONS)
def test_hidden_columns_are_refused_in_ones_own_rows(database: Database, pair: Pair, name: str) -> None:
    """Also where they would only filter or sort, or as a part of the whole row."""
    hidden = columns(database.dsn)[name] if name in HIDDEN else READABLE[name].hidden
    shown = READABLE[name].owner if name in READABLE else "1"
    attempts = [
        query.format(column=sql.Identifier(column), shown=sql.Identifier(shown), table=table(name))
        for column in hidden
        for query in (
            sql.SQL("select {column} from {table}"),
            sql.SQL("select count(*) from {table} where {column} is not null"),
            sql.SQL("select 1 from {table} order by {column}"),
        )
    ]
    if hidden:
        attempts += [
            sql.SQL("select * from {}").format(table(name)),
            sql.SQL("select to_jsonb(t) from {} t").format(table(name)),
        ]
    for attempt in attempts:
        for role in CLIENTS:
            refused(database, role, pair.ann.user_id, attempt)


@pytest.mark.parametrize("role", CLIENTS)
@pytest.mark.parametrize("name", RELATIONS)
def test_nothing_is_writable(database: Database, pair: Pair, name: str, role: Role) -> None:
    """Views of sums and generated columns nobody can write: there PostgreSQL says so instead."""
    writes = [sql.SQL(text).format(table(name)) for text in ("insert into {} default values", "delete from {}")]
    writes.append(sql.SQL("truncate {}").format(table(name)))
    for column in columns(database.dsn)[name]:
        named = {"table": table(name), "column": sql.Identifier(column)}
        writes.append(sql.SQL("insert into {table} ({column}) values (null)").format(**named))
        writes.append(sql.SQL("update {table} set {column} = null").format(**named))
    for write in writes:
        refused(database, role, pair.ann.user_id, write, or_impossible=True)


@pytest.mark.parametrize("role", CLIENTS)
def test_no_privilege_but_reading_is_recorded(database: Database, role: Role) -> None:
    """Those that no statement above needs, too: references, triggers, maintenance."""
    with psycopg.connect(database.dsn) as connection:
        granted = connection.execute(
            "select c.relname, a.privilege_type from pg_class c"
            " left join pg_attribute t on t.attrelid = c.oid and t.attacl is not null,"
            " lateral (select * from aclexplode(c.relacl) union all select * from aclexplode(t.attacl)) a"
            " where c.relnamespace = 'public'::regnamespace and a.grantee in (0, %s::regrole)",
            [role],
        ).fetchall()
    assert set(granted) <= ({(name, "SELECT") for name in READABLE} if role == "authenticated" else set())


@pytest.mark.parametrize("role", CLIENTS)
def test_functions_are_the_service_roles_alone(database: Database, pair: Pair, role: Role) -> None:
    found = functions(database.dsn)
    assert len([function for function in found if function.schema == "public"]) > 30
    for function in found:
        arguments = sql.SQL(", ").join(sql.SQL(f"null::{kind}") for kind in function.parameters.values())
        call = sql.SQL("select {}({})").format(sql.Identifier(function.schema, function.name), arguments)
        refused(database, role, pair.ann.user_id, call)
    with psycopg.connect(database.dsn) as connection:
        called = connection.execute(
            "select p.oid::regprocedure::text from pg_proc p where pronamespace = 'public'::regnamespace"
            " and prorettype <> 'trigger'::regtype and has_function_privilege('service_role', p.oid, 'execute')"
        ).fetchall()
    assert {name for (name,) in called} == {function.signature for function in found if function.schema == "public"}


@pytest.mark.parametrize("role", [*CLIENTS, "service_role"])
def test_nobody_creates_anything_or_enters_the_private_schema(database: Database, pair: Pair, role: Role) -> None:
    for statement in (
        "create table public.mine (id int)",
        "create function public.mine() returns int language sql as 'select 1'",
        "create table private.mine (id int)",
        "select private.lease()",
        "alter table public.turns disable row level security",
        "drop policy turns_own on public.turns",
    ):
        refused(database, role, pair.ann.user_id, sql.SQL(statement))


def test_each_policy_shows_a_user_the_rows_of_their_own_id(database: Database) -> None:
    """One policy for each readable table, none for the others; a view reads with its reader's rights."""
    with psycopg.connect(database.dsn) as connection:
        policies = connection.execute(
            "select tablename, cmd, roles::text[], permissive, qual, with_check from pg_policies"
            " where schemaname in ('public', 'private') order by 1"
        ).fetchall()
        unprotected = connection.execute(
            "select relname from pg_class where relnamespace in ('public'::regnamespace, 'private'::regnamespace)"
            " and (relkind in ('r', 'p') and not relrowsecurity or relkind in ('m', 'f')"
            " or relkind = 'v' and not coalesce(reloptions, '{}') @> array['security_invoker=true'])"
        ).fetchall()
    assert policies == [
        (name, "SELECT", ["authenticated"], "PERMISSIVE", f"(( SELECT auth.uid() AS uid) = {row.owner})", None)
        for name, row in sorted(READABLE.items())
        if not row.is_view
    ]
    assert unprotected == []


def test_every_function_has_a_fixed_search_path(database: Database) -> None:
    with psycopg.connect(database.dsn) as connection:
        found = connection.execute(
            "select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = pronamespace"
            " where nspname in ('public', 'private') and not coalesce(proconfig, '{}') @> array['search_path=\"\"']"
        ).fetchall()
    assert found == []


def test_an_open_table_column_or_function_would_be_found(supabase_env: dict[str, str]) -> None:
    """With a hosted project's defaults a migration that closes nothing opens everything."""
    with as_hosted(supabase_env["SUPABASE_DB_URL"]) as dsn, ExitStack() as opened:
        database = Database(dsn, opened)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                "create table public.open (user_id uuid);"
                "create function public.open() returns int language sql as 'select 1';"
            )
        assert "open" in columns(dsn)
        for statement in ("insert into public.open values (null)", "select * from public.open", "select public.open()"):
            database.ask("anon", None, sql.SQL(statement))
