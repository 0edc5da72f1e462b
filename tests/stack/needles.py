"""Searches every table of all three databases of a stack for words: what is left of a user who was deleted."""

import asyncio
from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg import sql

DATABASES: Final = ("postgres", "letta", "litellm")
_TABLES: Final = """
    select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'm') and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
"""


async def tables_with(env: dict[str, str], words: Sequence[str]) -> dict[str, list[str]]:
    """`database.schema.table` → those of the words that some row of it contains, in any column."""
    found: dict[str, list[str]] = {}
    for database in DATABASES:
        found |= await asyncio.to_thread(_search, env["SUPABASE_DB_URL"], database, words)
    return found


def _search(url: str, database: str, words: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with psycopg.connect(url, dbname=database, autocommit=True) as connection:
        for schema, table in connection.execute(_TABLES).fetchall():
            rows = sql.SQL("select distinct word from {} as r, unnest(%s::text[]) word where strpos(r::text, word) > 0")
            hits = connection.execute(rows.format(sql.Identifier(schema, table)), [list(words)]).fetchall()
            if hits:
                found[f"{database}.{schema}.{table}"] = sorted(word for (word,) in hits)
    return found
