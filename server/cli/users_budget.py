"""`chat users set-budget` and `set-plan`: change one user's plan at once, and print the plan and the budget."""

import re
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import click

from server.admin.service import PlanChange
from server.cli.context import open_operator_context, quiet_settings, run
from server.config.environment import env_file_option
from server.config.settings import BUDGET_PERIOD, HIGHEST_LIMIT, MOST_DIGITS, model_names
from server.ports import Budget, Plan
from server.terminal import echo, printable

NONE: Final = "none"
"""The value that removes a limit. Not None, which click uses for an option that is not given."""


def _money(_context: click.Context, _option: click.Parameter, value: str | None) -> Decimal | None:
    """Parse an exact amount of US dollars. Raises click.BadParameter."""
    if value is None:
        return None
    try:
        amount = Decimal(value)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise click.BadParameter(f"{value} is no amount of US dollars.")
    if len(amount.normalize().as_tuple().digits) > MOST_DIGITS:
        raise click.BadParameter(f"{value} has more than {MOST_DIGITS} digits, which LiteLLM would not keep.")
    return amount


def _period(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Check the period of the budget, or NONE. Raises click.BadParameter."""
    if value is not None and value != NONE and not re.fullmatch(BUDGET_PERIOD, value):
        raise click.BadParameter(f"{value} is no period: 1mo, or a number and s, m, h or d (30d), or {NONE}.")
    return value


def _limit(_context: click.Context, _option: click.Parameter, value: str | None) -> int | str | None:
    """Parse a limit per minute, or NONE. Raises click.BadParameter."""
    if value is None or value == NONE:
        return value
    number = int(value) if value.isascii() and value.isdigit() else 0
    if not 1 <= number <= HIGHEST_LIMIT:
        raise click.BadParameter(f"{value} is no number between 1 and {HIGHEST_LIMIT}, nor {NONE}.")
    return number


@click.command("set-budget")
@click.argument("user_id", type=click.UUID)
@click.option("--budget", callback=_money, metavar="USD", help="US dollars per period.")
@click.option("--unlimited", is_flag=True, help="No budget.")
@click.option("--period", callback=_period, metavar="PERIOD", help="The period of the budget (30d, 1mo), or none.")
@click.option("--tokens-per-minute", callback=_limit, metavar="N", help="A number, or none.")
@click.option("--requests-per-minute", callback=_limit, metavar="N", help="Model calls (a message is some), or none.")
@click.option("--models", help="Names separated by commas, or all.")
@env_file_option
def set_budget(
    user_id: UUID, budget: Decimal | None, unlimited: bool, models: str | None, env_file: Path | None, **limits: Any
) -> None:
    """Change the plan of USER_ID: only the given options, from the next model call on.

    The spending of the current period is kept, also when the period changes."""
    if budget is not None and unlimited:
        raise click.UsageError("Give either --budget or --unlimited.")
    given: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
    if budget is not None or unlimited:
        given["budget"] = NONE if unlimited else budget
    settings = quiet_settings(env_file)
    if models is not None:
        given["models"] = _models(models, settings.agent_model)
    if not given:
        raise click.UsageError("Say what to change: --budget, --unlimited, --period, … (see --help).")
    change = {name: None if value == NONE else value for name, value in given.items()}

    async def apply() -> PlanChange:
        async with open_operator_context(settings) as context:
            return await context.admin.change_plan(context.actor, str(user_id), change)

    _show(run(apply()))


@click.command("set-plan")
@click.argument("user_id", type=click.UUID)
@click.argument("plan")
@env_file_option
def set_plan(user_id: UUID, plan: str, env_file: Path | None) -> None:
    """Give USER_ID the PLAN of that name in PLANS, from the next model call on.

    The spending of the current period is kept, also when the period changes."""
    settings = quiet_settings(env_file)

    async def apply() -> PlanChange:
        async with open_operator_context(settings) as context:
            return await context.admin.set_plan(context.actor, str(user_id), plan)

    _show(run(apply()))


def _show(change: PlanChange) -> None:
    if change.budget is None:
        echo("The account gets this plan as soon as its agent is made.")
        return
    for line in lines_of(change.account.plan, change.plan, change.budget):
        echo(printable(line))


def _models(listed: str, agent_model: str) -> tuple[str, ...]:
    """The names of the allowed models; empty for all. Raises click.BadParameter."""
    if listed == "all":
        return ()
    names = model_names(listed)
    if agent_model not in names:
        raise click.BadParameter(f"{agent_model}, which every agent uses, must be one of them.", param_hint="--models")
    return names


def lines_of(name: str | None, plan: Plan, budget: Budget) -> list[str]:
    """A plan and its budget, for people."""
    limit = "none" if budget.limit is None else _dollars(budget.limit)
    resets_at = "never" if budget.resets_at is None else f"{budget.resets_at:%Y-%m-%d %H:%M} UTC"
    return [
        f"limit                {limit}",
        f"spent                {_dollars(budget.spent)}",
        f"period               {budget.period or 'none'}",
        f"resets at            {resets_at}",
        f"tokens per minute    {plan.tokens_per_minute or 'unlimited'}",
        f"requests per minute  {plan.requests_per_minute or 'unlimited'}",
        f"models               {', '.join(plan.models) or 'all'}",
        f"plan                 {name or 'none of the named ones'}",
    ]


def _dollars(amount: Decimal) -> str:
    """The exact amount without trailing zeros."""
    return f"{amount.normalize():f} USD"
