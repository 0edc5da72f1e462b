"""`chat users delete` and `chat users export`: a user's whole account, removed or copied."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import click

from server.cli.context import open_operator_context, quiet_settings, run
from server.config.environment import env_file_option
from server.protocol.shapes import wire_time
from server.terminal import echo

WAIT_SECONDS = 120.0


@click.command("delete")
@click.argument("user_id", type=click.UUID)
@click.option("--yes", is_flag=True, help="Do not ask.")
@env_file_option
def delete_user(user_id: UUID, yes: bool, env_file: Path | None) -> None:
    """Delete USER_ID with everything at Supabase, LiteLLM and Letta. This cannot be undone.

    If it is interrupted, or a service is unavailable, the account stays closed and the server completes the deletion;
    so does this command when it is repeated. See docs/operations.md for what the services' interfaces leave."""
    settings = quiet_settings(env_file)
    if not yes:
        click.confirm(f"Delete {user_id} for ever?", abort=True)

    async def delete() -> bool:
        async with open_operator_context(settings) as context:
            return await context.admin.delete(context.actor, str(user_id), timeout=WAIT_SECONDS)

    if not run(delete()):
        raise click.ClickException(f"{user_id} is closed, but not deleted yet. The server goes on, or repeat this.")
    echo(f"{user_id} is deleted.")


@click.command("export")
@click.argument("user_id", type=click.UUID)
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="A new file, not standard output."
)
@env_file_option
def export_user(user_id: UUID, output: Path | None, env_file: Path | None) -> None:
    """Write everything that is stored about USER_ID as one JSON document.

    It ends with `"complete": true`. If a service fails in the middle, the command fails, and what it wrote is not
    whole."""
    settings = quiet_settings(env_file)

    async def export() -> None:
        async with open_operator_context(settings) as context:
            exported_at = str(wire_time(datetime.now(UTC)))
            with click.open_file("-", "wb") if output is None else output.open("xb") as file:
                async for piece in context.admin.export(context.actor, str(user_id), exported_at):
                    file.write(piece)

    try:
        run(export())
    except FileExistsError as cause:
        raise click.ClickException(f"{output} exists already.") from cause
