"""`chat users`: see how accounts stand and finish or mend what provisioning left behind."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import click

from server.keyring import KeyRing
from server.observability import configure_logging
from server.operations.environment import demand_settings, env_file_option
from server.operations.running import run_command
from server.protocol.errors import PlatformError
from server.provisioning import Provisioner
from server.provisioning.reencryption import reencrypt
from server.services import open_letta, open_litellm, open_supabase, workshop
from server.settings import Settings
from server.supabase_adapter.accounts import SupabaseAccountStore

ALL_AT_MOST = 10_000
PAGE = 200


@dataclass(frozen=True, slots=True)
class Desk:
    """What the commands work with."""

    accounts: SupabaseAccountStore
    provisioner: Provisioner
    keys: KeyRing
    config_hash: str


@asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[Desk]:
    """The account store and a provisioner of this process's own, as the server has them."""
    async with open_supabase(settings) as supabase, open_letta(settings) as letta, open_litellm(settings) as litellm:
        accounts, agents = SupabaseAccountStore(supabase), workshop(settings, letta, litellm)
        async with aclosing(Provisioner(accounts, agents)) as provisioner:
            yield Desk(accounts, provisioner, agents.keys, agents.template.hash)


@click.group()
def users() -> None:
    """Look after the platform's users."""


@users.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many, newest first.")
@env_file_option
def list_users(limit: int, env_file: Path | None) -> None:
    """Show the newest accounts and how their agents stand."""
    settings = demand_settings(env_file)
    configure_logging(settings.environment, "ERROR")

    async def show() -> None:
        async with open_desk(settings) as desk:
            for account in await desk.accounts.newest(limit):
                status = account.agent_status
                click.echo(f"{account.user_id}  {status:<12}  {account.email}  {account.status_reason or ''}".rstrip())

    run_command(show())


@users.command()
@click.argument("user_id", required=False, type=click.UUID)
@click.option("--all", "everyone", is_flag=True, help="Every account that is unfinished, failed or out of date.")
@env_file_option
def repair(user_id: UUID | None, everyone: bool, env_file: Path | None) -> None:
    """Finish the provisioning of USER_ID, taking every step again, or with --all of everyone whose is not complete.

    A key that SECRET_KEY can no longer decrypt is replaced, a deleted agent is made anew (without its memory)."""
    settings = _demand_target(user_id, everyone, env_file)

    async def mend() -> int:
        async with open_desk(settings) as desk:
            if user_id is None:
                found = await desk.accounts.incomplete(desk.config_hash, ALL_AT_MOST)
            else:
                found = [str(user_id)]
            outcomes = [await _repair(desk, one, thorough=user_id is not None) for one in found]
            click.echo(f"{sum(outcomes)} of {len(outcomes)} complete")
            return len(outcomes) - sum(outcomes)

    if run_command(mend()):
        raise SystemExit(1)


@users.command("reencrypt")
@click.argument("user_id", required=False, type=click.UUID)
@click.option("--all", "everyone", is_flag=True, help="Every account.")
@env_file_option
def reencrypt_keys(user_id: UUID | None, everyone: bool, env_file: Path | None) -> None:
    """Encrypt stored keys with SECRET_KEY that SECRET_KEY_PREVIOUS encrypted. Afterwards the previous one can go."""
    settings = _demand_target(user_id, everyone, env_file)

    async def move() -> Counter[str]:
        async with open_desk(settings) as desk:
            found = _everybody(desk.accounts) if user_id is None else _just(str(user_id))
            owner = f"reencryption-{uuid4()}"
            return Counter([await reencrypt(desk.accounts, desk.keys, one, owner) async for one in found])

    counted = run_command(move())
    click.echo(", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items())) or "no accounts")
    if counted["unreadable"] or counted["busy"]:
        click.echo("Run it again for those that were busy; chat users repair USER_ID replaces an unreadable key.")
        raise SystemExit(1)


async def _everybody(accounts: SupabaseAccountStore) -> AsyncIterator[str]:
    last: str | None = None
    while page := await accounts.page(last, PAGE):
        for account in page:
            yield account.user_id
        last = page[-1].user_id


async def _just(user_id: str) -> AsyncIterator[str]:
    yield user_id


def _demand_target(user_id: UUID | None, everyone: bool, env_file: Path | None) -> Settings:
    """The settings, once it is clear whom a command is about."""
    if (user_id is None) != everyone:
        raise click.UsageError("Give either a USER_ID or --all.")
    settings = demand_settings(env_file)
    configure_logging(settings.environment, "ERROR")
    return settings


async def _repair(desk: Desk, user_id: str, *, thorough: bool) -> bool:
    try:
        agent = await desk.provisioner.attempt(user_id, thorough=thorough)
    except PlatformError as error:
        click.echo(f"{user_id}: {error.message}", err=True)
        return False
    click.echo(f"{user_id}: {agent.agent_id}")
    return True
