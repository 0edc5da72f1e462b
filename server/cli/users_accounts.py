"""`chat users list` and `repair`: which accounts there are, and the repair of their agents."""

from pathlib import Path
from uuid import UUID

import click

from server.cli.context import OperatorContext, open_operator_context, quiet_settings, run
from server.config.environment import env_file_option
from server.ports import AccountFilter
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.terminal import echo, printable

ALL_AT_MOST = 10_000


@click.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many, newest first.")
@click.option("--search", metavar="TEXT", help="An id, or a part of an e-mail address.")
@click.option("--status", type=click.Choice([status.value for status in AgentStatus]))
@click.option("--admins", is_flag=True, help="Only admins.")
@env_file_option
def list_users(limit: int, search: str | None, status: str | None, admins: bool, env_file: Path | None) -> None:
    """Show the newest accounts and the status of their agents."""
    settings = quiet_settings(env_file)
    wanted = AccountFilter(search, None if status is None else AgentStatus(status), admins)

    async def show() -> None:
        async with open_operator_context(settings) as context:
            for found in (await context.admin.search(wanted, None, limit))[0]:
                account, status = found.account, found.account.agent_status
                email, reason = printable(account.email), printable(account.status_reason or "")
                echo(f"{account.user_id}  {status:<12}  {email}  {reason}".rstrip())

    run(show())


@click.command()
@click.argument("user_id", required=False, type=click.UUID)
@click.option("--all", "everyone", is_flag=True, help="Every account that is unfinished, failed or out of date.")
@env_file_option
def repair(user_id: UUID | None, everyone: bool, env_file: Path | None) -> None:
    """Repair the account of USER_ID by repeating every step of its provisioning; with --all, all incomplete accounts.

    A key that LiteLLM has blocked or lost is restored; one that SECRET_KEY cannot decrypt is replaced. A deleted agent
    is replaced, without its memory; if Letta does not know the user's organization, so is everything in it."""
    if (user_id is None) != everyone:
        raise click.UsageError("Give either a USER_ID or --all.")
    settings = quiet_settings(env_file)

    async def repair_accounts() -> int:
        async with open_operator_context(settings) as context:
            if user_id is None:
                found = await context.accounts.incomplete(context.config_hash, ALL_AT_MOST)
            else:
                found = [str(user_id)]
            outcomes = [await _repair(context, one, thorough=user_id is not None) for one in found]
            echo(f"{sum(outcomes)} of {len(outcomes)} complete")
            return len(outcomes) - sum(outcomes)

    if run(repair_accounts()):
        raise SystemExit(1)


async def _repair(context: OperatorContext, user_id: str, *, thorough: bool) -> bool:
    try:
        agent = await context.admin.repair(context.actor, user_id, thorough=thorough)
    except PlatformError as error:
        echo(printable(f"{user_id}: {error.message}"), err=True)
        return False
    echo(printable(f"{user_id}: {agent.agent_id}"))
    return True
