"""Serves Letta: creates its tables if there are none, then runs uvicorn with the arguments of the command line.

Run with Letta's interpreter and settings. One process does both, since importing Letta takes seconds of processor time.
Letta's wheel has no alembic migrations, in which some columns get their default, a sequence. They get one here: without
that of messages.sequence_id, each creation of an agent returns 409."""

import gc

if __name__ == "__main__":  # not in further workers, which import this file and do not call what enables it again
    gc.disable()  # until all is imported: there is no garbage yet, and looking for it takes a fifth of the time

import asyncio
import sys
from importlib import import_module

import letta.orm
import uvicorn
from letta.orm.base import Base
from letta.server.db import engine
from sqlalchemy import FetchedValue, text
from sqlalchemy.ext.asyncio import AsyncConnection

HAS_TABLES = text("select to_regclass('public.agents') is not null")
WITHOUT_OPENAPI = "--no-generation"
"""Letta's app reads this from the command line, and builds no OpenAPI document, which takes 3 s."""


def main() -> None:
    """Create what is missing, and serve until a signal."""
    assert letta.orm  # imported so that every table is on the metadata
    asyncio.run(ensure_tables())
    arguments = sys.argv[1:]
    sys.argv.append(WITHOUT_OPENAPI)
    import_module(arguments[0].partition(":")[0])
    gc.freeze()  # what is imported stays: collections need not look at it
    gc.enable()
    uvicorn.main(arguments)


async def ensure_tables() -> None:
    """Create all tables and sequences in one transaction, unless they exist."""
    async with engine.begin() as connection:
        if not await connection.scalar(HAS_TABLES):
            await _create_tables(connection)
    await engine.dispose()  # uvicorn starts an event loop of its own, which cannot use these connections


async def _create_tables(connection: AsyncConnection) -> None:
    await connection.run_sync(Base.metadata.create_all)
    for column in (column for table in Base.metadata.tables.values() for column in table.columns):
        if type(column.server_default) is not FetchedValue:
            continue
        table, sequence = column.table.name, f"{column.table.name}_{column.name}_seq"
        await connection.execute(text(f"create sequence {sequence}"))
        await connection.execute(text(f"alter table {table} alter {column.name} set default nextval('{sequence}')"))
        await connection.execute(text(f"alter sequence {sequence} owned by {table}.{column.name}"))


if __name__ == "__main__":
    main()
