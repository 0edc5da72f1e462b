"""Two users with rows in every table that users may read, in the tests' project and in a copy as hosted ones are."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import psycopg
from psycopg import sql

from server.adapters.supabase.accounts import SupabaseAccountStore
from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.credentials import SupabaseCredentials
from server.adapters.supabase.migration_files import project_migrations
from server.adapters.supabase.migrations import apply_migrations
from server.ports import ALL_SCOPES, NewApiKey, Principal
from server.protocol.shapes import Turn
from tests.stack.schema import empty_project
from tests.stack.supabase_users import converse, sign_up

Role = Literal["anon", "authenticated", "service_role"]

HOSTED: Final = """
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
grant usage on schema public, auth to anon, authenticated, service_role;
create or replace function auth.uid() returns uuid language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
  )::uuid
$$;
"""
"""What a hosted project has before the migrations: everything new is open to every client, as documented in
supabase.com/docs/guides/api/hardening-data-api; and the user's id comes from the claims."""

COLUMNS: Final = """
select c.relname, array_agg(a.attname::text order by a.attnum)
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'public'::regnamespace and c.relkind = any(%s) and a.attgenerated = any(%s) group by 1
"""
FUNCTIONS: Final = """
select p.oid::regprocedure::text, n.nspname, p.proname, coalesce(p.proargnames, '{}'),
  array(select format_type(t, null) from unnest(p.proargtypes) with ordinality as o (t, n) order by n)
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname in ('public', 'private') and p.prorettype <> 'trigger'::regtype
"""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of ours: as PostgreSQL names it, and its parameters' names and types."""

    signature: str
    schema: str
    name: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class Pair:
    """Ann, who reads, and Ben, whose rows she must not see."""

    ann: Principal
    ben: Principal
    ben_turn: Turn


async def make_pair(client: SupabaseClient) -> Pair:
    """Ann and Ben, each with rows in every readable table."""
    ann, ben = await sign_up(client), await sign_up(client)
    for principal in (ann, ben):
        await SupabaseAccountStore(client).ensure(principal.user_id, principal.email, None)
        key = NewApiKey(principal.user_id, "script", f"chat_{principal.user_id[-12:]}", "0" * 64, ALL_SCOPES, None)
        await SupabaseCredentials(client).create_key(key, most=10)
    await converse(client, ann.user_id, "ann's")
    [turn] = await converse(client, ben.user_id, "ben's")
    return Pair(ann, ben, turn)


def columns(dsn: str, kinds: str = "rvm", *, generated: bool = True) -> dict[str, list[str]]:
    """The tables and views of the schema `public`, and the columns of each."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(COLUMNS, [list(kinds), ["", "s"] if generated else [""]]).fetchall()
    return {name: found for name, found in rows if name != "relation"}


def functions(dsn: str) -> list[Function]:
    """Our functions, without those of triggers, which nobody can call."""
    with psycopg.connect(dsn) as connection:
        return [
            Function(signature, schema, name, dict(zip(names[: len(types)], types, strict=True)))
            for signature, schema, name, names, types in connection.execute(FUNCTIONS)
        ]


@contextmanager
def as_hosted(dsn: str) -> Iterator[str]:
    """A project with a hosted one's default privileges, then the migrations, and then the rows of the one at `dsn`."""
    with empty_project(dsn) as copy:
        with psycopg.connect(copy, autocommit=True) as connection:
            connection.execute(HOSTED)
        apply_migrations(copy, project_migrations())
        with psycopg.connect(dsn) as source, psycopg.connect(copy) as target:
            target.execute("set local session_replication_role = replica")  # no foreign keys, no triggers
            _copy(source, target, sql.SQL("auth.users"), ["id", "email"])
            for table, names in columns(dsn, "r", generated=False).items():
                _copy(source, target, sql.Identifier("public", table), names)
        yield copy


def _copy(
    source: psycopg.Connection[Any], target: psycopg.Connection[Any], table: sql.Composable, names: list[str]
) -> None:
    listed = sql.SQL(", ").join(map(sql.Identifier, names))
    reading = sql.SQL("copy {} ({}) to stdout").format(table, listed)
    writing = sql.SQL("copy {} ({}) from stdin").format(table, listed)
    with source.cursor().copy(reading) as data, target.cursor().copy(writing) as into:
        for chunk in data:
            into.write(chunk)


class Database:
    """A database, asked as one of the roles of a project's clients."""

    def __init__(self, dsn: str, opened: ExitStack) -> None:
        self.dsn = dsn
        self._connection = opened.enter_context(psycopg.connect(dsn, autocommit=True))

    def ask(
        self, role: Role, user_id: str | None, query: sql.SQL | sql.Composed, *values: Any
    ) -> list[tuple[Any, ...]]:
        """The rows that this role gets with the claims of this user. Nothing is committed.

        Raises psycopg.errors.InsufficientPrivilege."""
        claims = f'{{"sub": "{user_id}", "role": "{role}"}}' if user_id else "{}"
        with self._connection.transaction(force_rollback=True):
            for name, value in (("claims", claims), ("claim.sub", user_id or ""), ("claim.role", role)):
                self._connection.execute("select set_config(%s, %s, true)", [f"request.jwt.{name}", value])
            self._connection.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
            cursor = self._connection.execute(query, values)
            return cursor.fetchall() if cursor.description else []
