"""`chat users rotate-key` and `chat users reencrypt`: users' LiteLLM keys and their encryption."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import click

from server.adapters.supabase.accounts import SupabaseAccountStore
from server.cli.context import open_operator_context, quiet_settings, run
from server.config.environment import env_file_option
from server.provisioning.reencryption import reencrypt
from server.terminal import echo

PAGE = 200


@click.command("rotate-key")
@click.argument("user_id", type=click.UUID)
@click.option("--now", "at_once", is_flag=True, help="Block the old key at once: for a leaked key.")
@env_file_option
def rotate_key(user_id: UUID, at_once: bool, env_file: Path | None) -> None:
    """Give USER_ID a new key at LiteLLM and Letta.

    The old key stays valid for ten minutes, so that no running reply fails. With --now it is blocked as soon as the new
    one is in use, and a reply that calls its model at that moment may fail. If the command fails, run it again."""
    settings = quiet_settings(env_file)

    async def rotate() -> None:
        async with open_operator_context(settings) as context:
            await context.admin.rotate_key(context.actor, str(user_id), at_once=at_once)

    run(rotate())
    echo(f"{user_id} has a new key. The old one {'is blocked' if at_once else 'ends in ten minutes'}.")


@click.command("reencrypt")
@click.argument("user_id", required=False, type=click.UUID)
@click.option("--all", "everyone", is_flag=True, help="Every account.")
@env_file_option
def reencrypt_keys(user_id: UUID | None, everyone: bool, env_file: Path | None) -> None:
    """Encrypt stored keys with SECRET_KEY instead of SECRET_KEY_PREVIOUS, which can be removed afterwards."""
    if (user_id is None) != everyone:
        raise click.UsageError("Give either a USER_ID or --all.")
    settings = quiet_settings(env_file)

    async def move() -> Counter[str]:
        async with open_operator_context(settings) as context:
            found = _everybody(context.accounts) if user_id is None else _just(str(user_id))
            owner = f"reencryption-{uuid4()}"
            return Counter([await reencrypt(context.accounts, context.keys, one, owner) async for one in found])

    counted = run(move())
    echo(", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items())) or "no accounts")
    if counted["unreadable"] or counted["busy"]:
        echo("Run it again for those that were busy; chat users repair USER_ID replaces an unreadable key.")
        raise SystemExit(1)


async def _everybody(accounts: SupabaseAccountStore) -> AsyncIterator[str]:
    last: str | None = None
    while page := await accounts.page(last, PAGE):
        for account in page:
            yield account.user_id
        last = page[-1].user_id


async def _just(user_id: str) -> AsyncIterator[str]:
    yield user_id
