"""`chat billing`: compare users' charges with the model gateway's spend log, and reconcile them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from uuid import UUID

import click

from server.adapters.litellm.billing import LiteLLMBilling
from server.adapters.supabase.ledger import SupabaseLedger
from server.app.clients import open_litellm, open_supabase
from server.billing.audit import Audit, audit
from server.billing.budgets import Budgets
from server.billing.reconciler import Reconciler
from server.cli.context import quiet_settings, run
from server.config.environment import env_file_option
from server.config.settings import Settings
from server.terminal import echo, printable

PAGE = 200
DEFAULT_DAYS = 2


@dataclass(frozen=True, slots=True)
class BillingContext:
    """The ledger and the model gateway."""

    ledger: SupabaseLedger
    gateway: LiteLLMBilling

    async def users(self, user_id: UUID | None) -> AsyncIterator[str]:
        """The given user, or all users who may have rows."""
        if user_id is not None:
            yield str(user_id)
            return
        last: str | None = None
        while page := await self.ledger.users(last, PAGE):
            for user in page:
                yield user
            last = page[-1]


@asynccontextmanager
async def open_billing_context(settings: Settings) -> AsyncIterator[BillingContext]:
    async with open_supabase(settings) as supabase, open_litellm(settings) as litellm:
        yield BillingContext(SupabaseLedger(supabase), LiteLLMBilling(litellm))


_whose = click.argument("user_id", required=False, type=click.UUID)
_everyone = click.option("--all", "everyone", is_flag=True, help="Every user.")
_first = click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), help="First UTC day.  [default: yesterday]")
_last = click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), help="Last UTC day.  [default: today]")


@click.group()
def billing() -> None:
    """Verify and reconcile users' charges."""


@billing.command("audit")
@_whose
@_everyone
@_first
@_last
@env_file_option
def audit_ledger(
    user_id: UUID | None, everyone: bool, first: datetime | None, last: datetime | None, env_file: Path | None
) -> None:
    """Compare the ledger of USER_ID, or with --all of all users, with LiteLLM's spend log: call by call, exactly.

    Exits with 1 if they differ. Calls of turns that ended seconds ago may not be in LiteLLM's log yet."""
    settings, days = _demand(user_id, everyone, first, last, env_file)

    async def compare() -> int:
        async with open_billing_context(settings) as context:
            wrong, total = 0, Audit("total")
            async for one in context.users(user_id):
                found = await audit(context.ledger, context.gateway, one, *days)
                _add(total, found)
                wrong += not found.agrees
                for line in _report(found):
                    echo(printable(line))
            echo(_line(total, "agrees" if not wrong else f"{wrong} users differ"))
            return wrong

    if run(compare()):
        raise SystemExit(1)


@billing.command("settle")
@_whose
@_everyone
@_first
@env_file_option
def settle_ledger(user_id: UUID | None, everyone: bool, first: datetime | None, env_file: Path | None) -> None:
    """Read LiteLLM's spend log again from a UTC day on, and enter missing calls. The server does so for the last
    day."""
    settings, days = _demand(user_id, everyone, first, None, env_file)

    async def catch_up() -> None:
        async with open_billing_context(settings) as context:
            reconciler = Reconciler(context.ledger, context.gateway, Budgets(context.ledger, context.gateway))
            number = 0
            async for one in context.users(user_id):
                asked = datetime.now(UTC)
                search = await context.ledger.search(one, datetime.combine(days[0], time(), UTC))
                await reconciler.reconcile(search, asked, datetime.now(UTC))
                number += 1
            echo(f"{number} users settled since {days[0]}")

    run(catch_up())


def _demand(
    user_id: UUID | None, everyone: bool, first: datetime | None, last: datetime | None, env_file: Path | None
) -> tuple[Settings, tuple[date, date]]:
    """Check the arguments. Returns the settings and the days. Raises click.UsageError."""
    if (user_id is None) != everyone:
        raise click.UsageError("Give either a USER_ID or --all.")
    to = last.date() if last else datetime.now(UTC).date()
    since = first.date() if first else to - timedelta(days=DEFAULT_DAYS - 1)
    if since > to:
        raise click.UsageError("--from must not be after --to.")
    return quiet_settings(env_file), (since, to)


def _add(total: Audit, found: Audit) -> None:
    total.calls += found.calls
    total.logged += found.logged
    total.rows += found.rows
    total.entered += found.entered
    total.waiting += found.waiting
    total.written_off += found.written_off
    total.flagged += found.flagged


def _report(found: Audit) -> list[str]:
    lines = [_line(found, "agrees" if found.agrees else "DIFFERS")]
    for name in ("missing", "surplus", "different", "flagged"):
        lines += [f"  {name}: {which}" for which in getattr(found, name)]
    lines += [f"  not logged by LiteLLM: {which}" for which in found.unlogged]
    lines += [f"  {one.what} {one.which}: {one.stored}, should be {one.derived}" for one in found.deviations]
    return lines


def _line(found: Audit, verdict: str) -> str:
    return (
        f"{found.user_id:<36}  {found.calls:>6} calls ${found.logged:f}  {found.rows:>6} rows ${found.entered:f}  "
        f"{len(found.waiting)} waiting, {len(found.written_off)} written off, {len(found.flagged)} flagged  {verdict}"
    )
