"""The places of a stack in which secrets could appear, as texts: tables, logs, Redis, command lines."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg import sql

TABLES = """
  select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'm') and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
  order by 1, 2
"""
Places = Iterator[tuple[str, str]]
"""Pairs of place and text."""


def tables(name: str, url: str) -> Places:
    """Every row of every table of a database, but PostgreSQL's own, and the bodies of its functions."""
    with psycopg.connect(url, autocommit=True) as connection:
        for schema, table in connection.execute(TABLES).fetchall():
            rows = sql.SQL("select t::text from {} t").format(sql.Identifier(schema, table))
            yield f"database {name} {schema}.{table}", "\n".join(row for (row,) in connection.execute(rows))
        bodies = connection.execute("select prosrc from pg_proc where prosrc is not null")
        yield f"functions {name}", "\n".join(body for (body,) in bodies)


def another_database(url: str, name: str) -> str:
    """The address of another database of the same PostgreSQL."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def redis_values(client: redis.Redis) -> Places:
    """Every key of a Redis database with its value."""
    for key in client.scan_iter():
        kind = client.type(key)
        match kind:
            case b"string":
                value: object = client.get(key)
            case b"hash":
                value = client.hgetall(key)
            case b"list":
                value = client.lrange(key, 0, -1)
            case b"stream":
                value = client.xrange(key)
            case b"set":
                value = client.smembers(key)
            case b"zset":
                value = client.zrange(key, 0, -1)
            case _:
                raise AssertionError(f"a value of an unknown type: {kind!r}")
        yield "redis", f"{key!r} {value!r}"


def command_lines(pids: Mapping[str, int]) -> Places:
    """The command lines of processes by their names, which every user of a machine can read."""
    for name, pid in pids.items():
        yield f"command line {name}", Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def sizes_of_logs(folder: Path) -> dict[Path, int]:
    """The logs in a folder, in bytes."""
    return {path: path.stat().st_size for path in folder.glob("*.log")}


def logs(folder: Path, before: Mapping[Path, int] | None = None) -> Places:
    """Every log in a folder, without what it held `before`, maybe by an older release."""
    for path in sorted(folder.glob("*.log")):
        text = path.read_bytes()[(before or {}).get(path, 0) :].decode(errors="replace")
        yield f"log {path.stem}", text
