"""Stand-in until server/supabase_adapter/migrations.py exists."""

from pathlib import Path

import psycopg


async def apply_migrations(dsn: str, folder: Path) -> list[str]:
    """Apply each file not yet recorded, in order."""
    done: list[str] = []
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(
            "create table if not exists supabase_migrations.schema_migrations (version text primary key, statements text[], name text)"
        )
        for file in sorted(folder.glob("*.sql")):
            version, _, name = file.stem.partition("_")
            found = await connection.execute(
                "select from supabase_migrations.schema_migrations where version = %s", [version]
            )
            if found.rowcount:
                continue
            async with connection.transaction():
                await connection.execute(file.read_text().encode())
                await connection.execute(
                    "insert into supabase_migrations.schema_migrations values (%s, %s, %s)",
                    [version, [file.read_text()], name],
                )
            done.append(file.name)
    return done
