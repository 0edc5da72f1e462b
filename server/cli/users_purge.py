"""`chat users purge`: what the interfaces of the services leave of deleted users, removed from their own databases."""

from importlib.resources import files
from pathlib import Path
from typing import Final

import click
import psycopg
from pydantic import SecretStr

from server.adapters.supabase.database import DatabaseError, connect
from server.cli.context import quiet_settings
from server.config.environment import env_file_option
from server.config.settings import Settings
from server.terminal import echo

SERVICES: Final = ("supabase", "letta", "litellm")


@click.command("purge")
@click.option("--print", "only_print", is_flag=True, help="Print the statements instead, for each service's database.")
@env_file_option
def purge(only_print: bool, env_file: Path | None) -> None:
    """Remove what is left of deleted users and histories in the databases of SUPABASE_DB_URL, LETTA_DB_URL and
    LITELLM_DB_URL; a database without its variable is left out.

    LiteLLM writes its log some seconds late, so run it a minute after the last deletion, or every night."""
    if only_print:
        for service in SERVICES:
            echo(f"-- {service}\nbegin;\n{statements(service)}commit;\n")
        return
    settings = quiet_settings(env_file)
    if all(_address(settings, service) is None for service in SERVICES):
        raise click.ClickException("Set SUPABASE_DB_URL, LETTA_DB_URL or LITELLM_DB_URL, or use --print.")
    for service in SERVICES:
        address = _address(settings, service)
        if address is None:
            echo(f"{service:<9} left out: {service.upper()}_DB_URL is not set")
        else:
            echo(f"{service:<9} {remove(service, address)} rows removed")


def statements(service: str) -> str:
    """The SQL that removes what is left at a service."""
    return (files("server.adapters") / service / "remains.sql").read_text(encoding="utf-8")


def remove(service: str, address: SecretStr) -> int:
    """Execute the statements in one transaction. Returns the number of deleted rows. Raises click.ClickException."""
    removed = 0
    try:
        with connect(address.get_secret_value(), f"{service.upper()}_DB_URL") as connection, connection.transaction():
            for statement in filter(str.strip, statements(service).split(";\n")):
                done = connection.execute(statement.encode())
                removed += done.rowcount if "delete from" in statement and "delete from gone" not in statement else 0
    except (DatabaseError, psycopg.Error) as cause:
        raise click.ClickException(f"{service}: {cause}") from cause
    return removed


def _address(settings: Settings, service: str) -> SecretStr | None:
    address: SecretStr | None = getattr(settings, f"{service}_db_url")
    return address
