"""Settings for commands: from the environment, and from a dotenv file for variables that it does not set."""

import os
from pathlib import Path
from typing import Final

import click
from dotenv import dotenv_values
from pydantic import ValidationError

from server.config.settings import Settings
from server.config.validators import similar_names

_MESSAGES: Final = {
    "missing": "is not set, and has no default",
    "url_parsing": "is no address such as https://example.com",
    "url_scheme": "is no address such as https://example.com",
}
"""Messages that replace those of pydantic, by the type of the error."""

_LOCAL_STACK: Final = Path(".chat/stack.env")
"""The settings of `chat up`, in the directory in which it was called."""

env_file_option = click.option(
    "--env-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with settings (such as .chat/stack.env) that the environment does not set.",
)


def read_settings(env_file: Path | None) -> Settings:
    """Read the settings. Raises pydantic.ValidationError, and click.ClickException if the file is not UTF-8."""
    try:
        return Settings(_env_file=env_file)
    except UnicodeDecodeError:
        raise click.ClickException(f"{env_file} is no text in UTF-8") from None


def require_settings(env_file: Path | None) -> Settings:
    """The settings. Raises click.ClickException with one sentence for each variable that is missing or invalid."""
    try:
        return read_settings(env_file)
    except ValidationError as error:
        problems = "; ".join(settings_problems(error, env_file))
        hint = (
            f". For the local stack add: --env-file {_LOCAL_STACK}"
            if env_file is None and _LOCAL_STACK.exists()
            else ""
        )
        raise click.ClickException(problems + hint) from None


def settings_problems(error: ValidationError, env_file: Path | None = None) -> list[str]:
    """One sentence per variable that is missing, invalid or perhaps misspelt. A secret is never shown."""
    problems = [
        f"{'_'.join(map(str, problem['loc'])).upper() or 'settings'}: "
        + _MESSAGES.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        for problem in error.errors(include_input=False, include_context=False, include_url=False)
    ]
    return problems + [f"{given}: is not read; {known} is meant, perhaps" for given, known in misspelt(env_file)]


def misspelt(env_file: Path | None = None) -> list[tuple[str, str]]:
    """(given, known) for each variable whose name differs from that of a setting by one letter."""
    given = set(os.environ) | set(dotenv_values(env_file) if env_file else ())
    return similar_names(given, Settings.model_fields)
