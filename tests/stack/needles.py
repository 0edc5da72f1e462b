"""Searches every table of all three databases of a stack for words: what is left of a user who was deleted."""

import asyncio
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

_TABLES: Final = """
    select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'm') and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
"""


async def tables_with(env: dict[str, str], words: Sequence[str]) -> dict[str, list[str]]:
    """`database.schema.table` → those of the words that some row of it contains, in any column. `postgres` is the
    project's database, whatever its name."""
    url = env["SUPABASE_DB_URL"]
    databases = {"postgres": urlsplit(url).path.removeprefix("/"), "letta": "letta", "litellm": "litellm"}
    found: dict[str, list[str]] = {}
    for called, database in databases.items():
        tables = await asyncio.to_thread(_search, url, database, words)
        found |= {f"{called}.{table}": hits for table, hits in tables.items()}
    return found


def _search(url: str, database: str, words: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with psycopg.connect(url, dbname=database, autocommit=True) as connection:
        for schema, table in connection.execute(_TABLES).fetchall():
            rows = sql.SQL("select distinct word from {} as r, unnest(%s::text[]) word where strpos(r::text, word) > 0")
            hits = connection.execute(rows.format(sql.Identifier(schema, table)), [list(words)]).fetchall()
            if hits:
                found[f"{schema}.{table}"] = sorted(word for (word,) in hits)
    return found
