"""Running a command's work: what a service refuses is one sentence, no traceback."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

import click

from server.protocol.errors import PlatformError
from server.supabase_adapter.client import SupabaseError

T = TypeVar("T")


def run_command(work: Coroutine[None, None, T]) -> T:
    """Raises click.ClickException."""
    try:
        return asyncio.run(work)
    except PlatformError as error:
        raise click.ClickException(error.message) from error
    except SupabaseError as error:
        raise click.ClickException(f"{error}. Ask chat doctor.") from error
