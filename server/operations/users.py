"""`chat users`: see how accounts stand and finish or mend what provisioning left behind."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

import aiohttp
import click

from server.keyring import KeyRing
from server.letta_adapter.client import LettaClient
from server.letta_adapter.directory import LettaDirectory
from server.letta_adapter.template import agent_template
from server.litellm_adapter.billing import LiteLLMBilling
from server.litellm_adapter.client import LiteLLMClient
from server.observability import configure_logging
from server.operations.environment import demand_settings, env_file_option
from server.ports import Plan
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.provisioning import Provisioner, Workshop
from server.provisioning.reencryption import reencrypt
from server.resilience import Breaker, Guard
from server.settings import Settings
from server.supabase_adapter.accounts import SupabaseAccountStore
from server.supabase_adapter.client import SupabaseClient, SupabaseError

T = TypeVar("T")
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
    async with AsyncExitStack() as stack:
        supabase = SupabaseClient(str(settings.supabase_url), settings.supabase_anon_key, settings.supabase_service_key)
        stack.push_async_callback(supabase.aclose)
        letta = LettaClient(
            str(settings.letta_base_url), settings.letta_api_token, Breaker("letta", ErrorCode.LETTA_UNAVAILABLE)
        )
        stack.push_async_callback(letta.aclose)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        guard = Guard(Breaker("litellm", ErrorCode.LITELLM_UNAVAILABLE))
        litellm = LiteLLMClient(str(settings.litellm_base_url), settings.litellm_master_key, http, guard)
        template = agent_template(settings.agent_model, settings.model_url_for_letta, settings.context_window)
        accounts = SupabaseAccountStore(supabase)
        keys = KeyRing(settings.secret_key, settings.secret_key_previous)
        workshop = Workshop(
            billing=LiteLLMBilling(litellm),
            directory=LettaDirectory(letta),
            keys=keys,
            plan=Plan(settings.default_budget_usd, settings.budget_period),
            template=template,
        )
        provisioner = Provisioner(accounts, workshop)
        stack.push_async_callback(provisioner.aclose)
        yield Desk(accounts, provisioner, keys, template.hash)


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

    _run(show())


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

    if _run(mend()):
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

    counted = _run(move())
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


def _run(work: Coroutine[None, None, T]) -> T:
    """Run it; what a service refuses is one sentence, no traceback."""
    try:
        return asyncio.run(work)
    except PlatformError as error:
        raise click.ClickException(error.message) from error
    except SupabaseError as error:
        raise click.ClickException(f"{error}. Ask chat doctor.") from error
