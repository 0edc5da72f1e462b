"""`chat migrate`: migrate a Supabase project's schema, or print the SQL for it."""

import click

from server.adapters.supabase.database import DatabaseError
from server.adapters.supabase.migration_files import project_migrations, read_migrations, script
from server.adapters.supabase.migrations import apply_migrations
from server.config.validators import stripped
from server.terminal import echo


@click.command()
@click.option(
    "--db-url",
    envvar="SUPABASE_DB_URL",
    help="The project's PostgreSQL address, of the session pooler (port 5432). Default: $SUPABASE_DB_URL.",
)
@click.option("--print", "printed", is_flag=True, help="Print the SQL for a new project's SQL editor instead.")
def migrate(db_url: str | None, printed: bool) -> None:
    """Apply pending migrations and changed functions."""
    try:
        if printed:
            echo(script(read_migrations(project_migrations())), nl=False)
            return
        db_url = stripped(db_url or "")
        if not db_url:
            raise click.ClickException("SUPABASE_DB_URL is not set. Give it, or use --print and the SQL editor.")
        applied = apply_migrations(db_url, project_migrations())
    except DatabaseError as error:
        raise click.ClickException(str(error)) from None
    for name in applied:
        echo(f"applied {name}")
    echo(f"{len(applied)} applied, the schema is up to date." if applied else "Nothing to do: up to date.")
