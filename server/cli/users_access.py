"""`chat users create`, `block`, `unblock` and `admin`: who may use the platform, and who operates it."""

from pathlib import Path
from uuid import UUID

import click
from pydantic import SecretStr

from server.cli.context import open_operator_context, quiet_settings, run
from server.config.environment import env_file_option
from server.terminal import echo, printable


@click.command()
@click.argument("email")
@click.option("--name", help="How the agent calls the user.")
@click.option("--plan", help="One of PLANS; the default one if it is not given.")
@click.option("--ask-password", is_flag=True, help="Ask for a password. Without one the user sets it by recovery.")
@env_file_option
def create(email: str, name: str | None, plan: str | None, ask_password: bool, env_file: Path | None) -> None:
    """Create a user with a confirmed e-mail address, whether or not registration is open."""
    settings = quiet_settings(env_file)
    typed = click.prompt("Password", hide_input=True, confirmation_prompt=True) if ask_password else None
    password = None if typed is None else SecretStr(typed)

    async def create_user() -> str:
        async with open_operator_context(settings) as context:
            account = await context.admin.create_user(context.actor, email, password, name, plan)
            return account.user_id

    echo(run(create_user()))


@click.command()
@click.argument("user_id", type=click.UUID)
@click.option("--reason", help="Shown to operators, and to the user as the status reason.")
@env_file_option
def block(user_id: UUID, reason: str | None, env_file: Path | None) -> None:
    """Block USER_ID: turns are cancelled at once, connections close and tokens are refused within fifteen seconds."""
    settings = quiet_settings(env_file)

    async def apply() -> None:
        async with open_operator_context(settings) as context:
            await context.admin.block(context.actor, str(user_id), reason)

    run(apply())
    echo(f"{user_id} is blocked.")


@click.command()
@click.argument("user_id", type=click.UUID)
@env_file_option
def unblock(user_id: UUID, env_file: Path | None) -> None:
    """Open the account of USER_ID again."""
    settings = quiet_settings(env_file)

    async def apply() -> str:
        async with open_operator_context(settings) as context:
            return str((await context.admin.unblock(context.actor, str(user_id))).agent_status)

    echo(printable(f"{user_id} is {run(apply())}."))


@click.command("admin")
@click.argument("user_id", type=click.UUID)
@click.argument("state", type=click.Choice(["on", "off"]))
@env_file_option
def set_admin(user_id: UUID, state: str, env_file: Path | None) -> None:
    """Make USER_ID an admin (on), who may use the endpoints `admin/…`, or no longer one (off); effective at once."""
    settings = quiet_settings(env_file)

    async def apply() -> None:
        async with open_operator_context(settings) as context:
            await context.admin.set_admin(context.actor, str(user_id), state == "on")

    run(apply())
    echo(f"{user_id} is {'an admin' if state == 'on' else 'no admin'}.")
