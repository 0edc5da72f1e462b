"""Connects to a project's database (SUPABASE_DB_URL), and converts its errors to sentences without passwords."""

import re
from typing import Final
from urllib.parse import unquote

import psycopg

from server.config.validators import DATABASE_EXAMPLE, check_database_url

CONNECT_SECONDS: Final = 10

_PASSWORD_REFUSED: Final = re.compile(
    r"password authentication failed|wrong password|invalid password|SASL authentication failed|no password supplied",
    re.IGNORECASE,
)
_USER_UNKNOWN: Final = re.compile(r"tenant or user not found|tenant/user .* not found", re.IGNORECASE)


class DatabaseError(Exception):
    """Why the database could not be used, as one sentence for an operator."""


def connect(dsn: str, variable: str = "SUPABASE_DB_URL") -> psycopg.Connection:
    """A connection in autocommit mode to the address in this variable. Raises DatabaseError."""
    try:
        check_database_url(dsn)
    except ValueError as cause:
        raise DatabaseError(f"{variable} {cause}.") from None
    try:
        return psycopg.connect(
            dsn, autocommit=True, prepare_threshold=None, connect_timeout=CONNECT_SECONDS, client_encoding="utf8"
        )
    except psycopg.OperationalError as cause:
        raise DatabaseError(_reason(cause, dsn, variable)) from None
    except (psycopg.Error, UnicodeError):  # the driver quotes an address that it cannot parse, with the password
        raise DatabaseError(f"{variable} cannot be read; it must look like {DATABASE_EXAMPLE}.") from None


def _reason(error: psycopg.OperationalError, dsn: str, variable: str) -> str:
    text = " ".join(str(error).split())
    if error.sqlstate in ("28P01", "28000") or _PASSWORD_REFUSED.search(text):
        return f"The database refuses the user name or password in {variable}."
    if _USER_UNKNOWN.search(text):
        return f"The database does not know the user in {variable}: at the session pooler it is postgres.<ref>."
    return f"The database did not answer: {_without_secrets(text, dsn) or type(error).__name__}"


def _without_secrets(text: str, dsn: str) -> str:
    """The text without the password and options of the address, quoted or not; it may name host, port and user."""
    account, _, location = dsn.partition("://")[2].rpartition("@")
    options = [option.partition("=")[2] for option in location.partition("?")[2].split("&")]
    for secret in (account.partition(":")[2], *options):
        for form in {secret, unquote(secret)} - {""}:
            text = text.replace(form, "…")
    return text
