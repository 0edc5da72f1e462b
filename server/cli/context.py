"""The context of commands about users: services, wired as in the server, and the handling of errors."""

import asyncio
import getpass
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from server.accounts.deletion import AccountDeletion
from server.adapters.supabase.accounts import SupabaseAccountStore
from server.adapters.supabase.faults import SupabaseError
from server.admin.service import AdminService
from server.app.clients import (
    account_export,
    admin_context,
    deletion_services,
    open_letta,
    open_litellm,
    open_supabase,
    provisioning_context,
)
from server.config.environment import require_settings
from server.config.settings import Settings
from server.keyring import KeyRing
from server.observability.logs import configure_logging
from server.ports import Actor
from server.protocol.errors import PlatformError
from server.provisioning import Provisioner

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OperatorContext:
    """The use cases of operators, who uses them, and the services of this process for all accounts."""

    admin: AdminService
    actor: Actor
    accounts: SupabaseAccountStore
    keys: KeyRing
    config_hash: str


@asynccontextmanager
async def open_operator_context(settings: Settings) -> AsyncIterator[OperatorContext]:
    """Open the services while the command runs."""
    async with open_supabase(settings) as supabase, open_letta(settings) as letta, open_litellm(settings) as litellm:
        accounts, agents = SupabaseAccountStore(supabase), provisioning_context(settings, letta, litellm)
        async with (
            aclosing(Provisioner(accounts, agents)) as provisioner,
            aclosing(AccountDeletion(deletion_services(settings, supabase, agents))) as deletion,
        ):
            data = deletion, account_export(supabase, letta)
            yield OperatorContext(
                admin=AdminService(admin_context(settings, supabase, agents, provisioner, data=data)),
                actor=Actor(None, f"{getpass.getuser()}@{socket.gethostname()}"),
                accounts=accounts,
                keys=agents.keys,
                config_hash=agents.template.hash,
            )


def quiet_settings(env_file: Path | None) -> Settings:
    """The settings of a command, and logging of errors only. Raises click.ClickException."""
    settings = require_settings(env_file)
    configure_logging(settings.environment, "ERROR")
    return settings


def run(work: Coroutine[None, None, T]) -> T:
    """Run a coroutine; an error of a service becomes one sentence without a traceback."""
    try:
        return asyncio.run(work)
    except PlatformError as error:
        raise click.ClickException(error.message) from error
    except SupabaseError as error:
        raise click.ClickException(f"{error}. Ask chat doctor.") from error
