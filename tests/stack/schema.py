"""The schema as the database itself describes it, object by object, and the migrations of the last release."""

import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psycopg
from psycopg import sql

AUTH: Final = """
create schema auth;
create table auth.users (id uuid primary key, email text, raw_user_meta_data jsonb);
create table auth.sessions (id uuid primary key, user_id uuid);
create function auth.uid() returns uuid language sql as 'select null::uuid';
"""

LAST_RELEASE: Final = Path(__file__).parent / "last_release.tar.gz"
"""`supabase/migrations` of the last release. An archive, so that searching the project for a function finds it
once. Made by `git archive --format=tar.gz -o tests/stack/last_release.tar.gz <commit>
supabase/migrations`."""

OURS: Final = "in ('public', 'private')"
ACL: Final = "(select coalesce(string_agg(a::text, ' ' order by a::text), '') from unnest({}) a)"

DESCRIPTIONS: Final = {
    "schema": f"""
        select nspname, {ACL.format("nspacl")}, obj_description(oid, 'pg_namespace')
        from pg_namespace where nspname {OURS}""",
    "default access": f"""
        select concat_ws(' ', pg_get_userbyid(defaclrole), n.nspname, defaclobjtype), {ACL.format("defaclacl")}
        from pg_default_acl left join pg_namespace n on n.oid = defaclnamespace
        where coalesce(nspname, 'public') {OURS}""",
    "relation": f"""
        select c.oid::regclass, relkind, relpersistence, relrowsecurity, relforcerowsecurity, reloptions, relreplident,
          {ACL.format("relacl")}, obj_description(c.oid, 'pg_class'), pg_get_userbyid(relowner)
        from pg_class c join pg_namespace n on n.oid = relnamespace where nspname {OURS} and relkind <> 'i'""",
    "column": f"""
        select c.oid::regclass || '.' || attname, attnum, format_type(atttypid, atttypmod), attnotnull, attidentity,
          attgenerated, pg_get_expr(adbin, adrelid), attcollation::regcollation, {ACL.format("attacl")},
          col_description(c.oid, attnum)
        from pg_attribute a join pg_class c on c.oid = attrelid join pg_namespace n on n.oid = relnamespace
          left join pg_attrdef d on adrelid = attrelid and adnum = attnum
        where nspname {OURS} and attnum > 0 and not attisdropped and relkind <> 'i'""",
    "constraint": f"""
        select coalesce(nullif(conrelid, 0)::regclass::text, contypid::regtype::text) || '.' || conname,
          pg_get_constraintdef(k.oid), convalidated, obj_description(k.oid, 'pg_constraint')
        from pg_constraint k join pg_namespace n on n.oid = connamespace where nspname {OURS} and contype <> 't'""",
    "index": f"""
        select indexrelid::regclass, pg_get_indexdef(indexrelid), indisvalid, obj_description(indexrelid, 'pg_class')
        from pg_index i join pg_class c on c.oid = indrelid join pg_namespace n on n.oid = relnamespace
        where nspname {OURS}""",
    "view": f"""
        select c.oid::regclass, pg_get_viewdef(c.oid)
        from pg_class c join pg_namespace n on n.oid = relnamespace where nspname {OURS} and relkind in ('v', 'm')""",
    "policy": f"""
        select tablename || '.' || policyname, permissive, roles, cmd, qual, with_check
        from pg_policies where schemaname {OURS}""",
    "function": f"""
        select p.oid::regprocedure, pg_get_functiondef(p.oid), prosrc, prosecdef, provolatile, proconfig,
          {ACL.format("proacl")}, obj_description(p.oid, 'pg_proc'), pg_get_userbyid(proowner)
        from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname {OURS}""",
    "trigger": f"""
        select c.oid::regclass || '.' || tgname, pg_get_triggerdef(t.oid), tgenabled,
          obj_description(t.oid, 'pg_trigger')
        from pg_trigger t join pg_class c on c.oid = tgrelid join pg_namespace n on n.oid = relnamespace
        where nspname {OURS} and not tgisinternal""",
    "type": f"""
        select t.oid::regtype, typtype, format_type(typbasetype, typtypmod), typdefault,
          obj_description(t.oid, 'pg_type'), {ACL.format("typacl")},
          (select array_agg(enumlabel order by enumsortorder) from pg_enum where enumtypid = t.oid)
        from pg_type t join pg_namespace n on n.oid = typnamespace where nspname {OURS}""",
    "rule": f"select tablename || '.' || rulename, definition from pg_rules where schemaname {OURS}",
    "sequence": f"select sequencename, start_value, increment_by from pg_sequences where schemaname {OURS}",
    "publication": """
        select pubname, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate,
          (select array_agg(schemaname || '.' || tablename order by 1) from pg_publication_tables t
            where t.pubname = p.pubname)
        from pg_publication p""",
    "event trigger": "select evtname, evtevent, evtfoid::regproc, evtenabled, evttags from pg_event_trigger",
    "extension": "select extname, extversion from pg_extension",
}
"""Per kind of object: the name of each, and its whole definition."""

IDENTITIES: Final = f"""
select 'relation ' || c.oid::regclass, c.oid, relfilenode from pg_class c join pg_namespace n on n.oid = relnamespace
  where nspname {OURS}
union all
select 'function ' || p.oid::regprocedure, p.oid, 0 from pg_proc p join pg_namespace n on n.oid = pronamespace
  where nspname {OURS}
union all
select 'trigger ' || tgname, t.oid, 0 from pg_trigger t where not tgisinternal
"""


@contextmanager
def empty_project(url: str) -> Iterator[str]:
    """The address of an empty database beside the one at `url`, with those objects of Supabase that the migrations
    refer to."""
    name = f"migrations_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as cluster:
        cluster.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        fresh = f"{url.rpartition('/')[0]}/{name}"
        with psycopg.connect(fresh, autocommit=True) as connection:
            connection.execute(AUTH.encode())
        yield fresh
        cluster.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def objects(dsn: str) -> dict[str, tuple[object, ...]]:
    """Every object of the schemas `public` and `private`, as kind and name, with what defines it."""
    found: dict[str, tuple[object, ...]] = {}
    with psycopg.connect(dsn) as connection:
        for kind, query in DESCRIPTIONS.items():
            for name, *definition in connection.execute(query.encode()):
                assert f"{kind} {name}" not in found
                found[f"{kind} {name}"] = tuple(definition)
    return found


def identities(dsn: str) -> dict[str, tuple[int, int]]:
    """The OID and the file of each relation, function and trigger: they differ if it was created again."""
    with psycopg.connect(dsn) as connection:
        return {name: (oid, file) for name, oid, file in connection.execute(IDENTITIES.encode())}


def recorded_versions(dsn: str) -> list[str]:
    """The migrations that are recorded in the database, in Supabase's order."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select version from supabase_migrations.schema_migrations order by version")
        return [version for (version,) in rows]


@contextmanager
def last_release() -> Iterator[Path]:
    """The folder of the last release's migrations."""
    with TemporaryDirectory() as folder, tarfile.open(LAST_RELEASE) as archive:
        archive.extractall(folder, filter="data")
        yield Path(folder) / "supabase" / "migrations"


def last_release_commit() -> str:
    """The commit that the last release was made from; git writes it into its archives."""
    with tarfile.open(LAST_RELEASE) as archive:
        archive.getmembers()
        return str(archive.pax_headers["comment"])
