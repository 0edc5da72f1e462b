"""Settings for commands: from the environment, with a dotenv file for what it lacks."""

import os
from pathlib import Path
from typing import Final

import click
from dotenv import dotenv_values
from pydantic import ValidationError

from server.config.settings import Settings
from server.config.validators import similar_names

_SAYINGS: Final = {
    "missing": "is not set, and has no default",
    "url_parsing": "is no address such as https://example.com",
    "url_scheme": "is no address such as https://example.com",
}
"""What is said of pydantic's kinds of errors instead of its own words."""

env_file_option = click.option(
    "--env-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of settings (.chat/stack.env, say) for what the environment does not set.",
)


def read_settings(env_file: Path | None) -> Settings:
    """Raises pydantic.ValidationError, and click.ClickException for a file that is no text."""
    try:
        return Settings(_env_file=env_file)
    except UnicodeDecodeError:
        raise click.ClickException(f"{env_file} is no text in UTF-8") from None


def demand_settings(env_file: Path | None) -> Settings:
    """The settings, or one sentence for each variable that is missing or wrong. Raises click.ClickException."""
    try:
        return read_settings(env_file)
    except ValidationError as error:
        raise click.ClickException("; ".join(settings_problems(error, env_file))) from None


def settings_problems(error: ValidationError, env_file: Path | None = None) -> list[str]:
    """One sentence per variable that is missing or wrong, and per one that may be misspelt. Values are never shown."""
    problems = [
        f"{'_'.join(map(str, problem['loc'])).upper() or 'settings'}: "
        + _SAYINGS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        for problem in error.errors(include_input=False, include_context=False, include_url=False)
    ]
    return problems + [f"{given}: is not read; {known} is meant, perhaps" for given, known in misspelt(env_file)]


def misspelt(env_file: Path | None = None) -> list[tuple[str, str]]:
    """(given, known) for each variable whose name is one letter off one of ours."""
    given = set(os.environ) | set(dotenv_values(env_file) if env_file else ())
    return similar_names(given, Settings.model_fields)
