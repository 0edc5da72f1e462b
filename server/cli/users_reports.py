"""`chat users show`, `usage` and `audit`: one user, the usage of all, and what operators did."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import click

from server.api.usage_csv import usage_csv_text
from server.cli.context import open_operator_context, quiet_settings, run
from server.config.environment import env_file_option
from server.ports import AccountDetails, AdminAction, Plan
from server.protocol.shapes import wire_money
from server.terminal import echo, printable


@click.command()
@click.argument("user_id", type=click.UUID)
@env_file_option
def show(user_id: UUID, env_file: Path | None) -> None:
    """Show one user: agent, plan, budget, spending, and the last errors."""
    settings = quiet_settings(env_file)

    async def read() -> tuple[AccountDetails, Plan | None]:
        async with open_operator_context(settings) as context:
            found = await context.admin.details(str(user_id))
            return found, await context.admin.plan(found.account)

    for line in _lines(*run(read())):
        echo(printable(line))


@click.command("usage")
@click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), help="First UTC day; 29 days before the last.")
@click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), help="Last UTC day; today if it is not given.")
@env_file_option
def show_usage(first: datetime | None, last: datetime | None, env_file: Path | None) -> None:
    """Print the usage of all users together as CSV, one row for each UTC day and model."""
    settings = quiet_settings(env_file)
    until = (last or datetime.now(UTC)).date()
    since = until - timedelta(days=29) if first is None else first.date()

    async def read() -> str:
        async with open_operator_context(settings) as context:
            return usage_csv_text((await context.admin.usage(since, until)).models)

    echo(run(read()).replace("\r\n", "\n"), nl=False)


@click.command("audit")
@click.argument("user_id", required=False, type=click.UUID)
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many, newest first.")
@env_file_option
def show_actions(user_id: UUID | None, limit: int, env_file: Path | None) -> None:
    """Show what operators did; with USER_ID, on this user or by this admin."""
    settings = quiet_settings(env_file)

    async def read() -> list[AdminAction]:
        async with open_operator_context(settings) as context:
            return (await context.admin.actions(None if user_id is None else str(user_id), None, limit))[0]

    for action in run(read()):
        who = action.actor_id or action.source
        end = action.outcome or "no outcome"
        line = f"{action.at:%Y-%m-%d %H:%M:%S}  {action.action:<12}  {action.user_id or '-':<36}  {end:<10}  {who}"
        echo(printable(f"{line}  {action.reason or ''}".rstrip()))


def _lines(found: AccountDetails, plan: Plan | None) -> list[str]:
    account, standing = found.account, found.standing
    lines = [
        f"id             {account.user_id}",
        f"e-mail         {account.email}",
        f"name           {account.name or '-'}",
        f"status         {account.agent_status}{f' ({account.status_reason})' if account.status_reason else ''}",
        f"admin          {'yes' if account.is_admin else 'no'}",
        f"plan           {account.plan or 'none of the named ones'}",
        f"agent          {account.agent_id or '-'}",
        f"registered     {account.created_at:%Y-%m-%d %H:%M} UTC",
        f"last message   {'-' if found.last_message_at is None else f'{found.last_message_at:%Y-%m-%d %H:%M} UTC'}",
        f"open turns     {found.open_turns}",
        f"total          {found.total.messages} messages, {found.total.tokens} tokens, "
        f"{wire_money(found.total.cost)} USD",
    ]
    if standing is not None:
        limit = "no limit" if standing.limit is None else f"{wire_money(standing.limit)} USD"
        lines.append(f"this period    {wire_money(standing.spent)} USD of {limit} ({standing.period or 'no period'})")
    if plan is not None:
        lines.append(f"models         {', '.join(plan.models) or 'all'}")
    return lines + [
        f"error          {error.at:%Y-%m-%d %H:%M} UTC  {error.code}: {error.message}" for error in found.errors
    ]
