"""Creates Letta's tables from its ORM; runs once, with Letta's interpreter and LETTA_PG_URI in the environment.

Letta's wheel has no alembic migrations, in which some columns get their default, a sequence. They get one here: without
that of messages.sequence_id, each creation of an agent returns 409."""

import asyncio

import letta.orm
from letta.orm.base import Base
from letta.server.db import engine
from sqlalchemy import FetchedValue, text


async def create_tables() -> None:
    """Create all tables and sequences in one transaction."""
    columns = [column for table in Base.metadata.tables.values() for column in table.columns]
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        for column in columns:
            if type(column.server_default) is not FetchedValue:
                continue
            table, sequence = column.table.name, f"{column.table.name}_{column.name}_seq"
            await connection.execute(text(f"create sequence {sequence}"))
            await connection.execute(text(f"alter table {table} alter {column.name} set default nextval('{sequence}')"))
            await connection.execute(text(f"alter sequence {sequence} owned by {table}.{column.name}"))
    await engine.dispose()


if __name__ == "__main__":
    assert letta.orm  # imported so that every table is on the metadata
    asyncio.run(create_tables())
