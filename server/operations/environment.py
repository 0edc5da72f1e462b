"""Settings for commands: from the environment, with a dotenv file for what it lacks."""

from pathlib import Path

import click
from pydantic import ValidationError

from server.settings import Settings

env_file_option = click.option(
    "--env-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of settings (.chat/stack.env, say) for what the environment does not set.",
)


def read_settings(env_file: Path | None) -> Settings:
    """Raises pydantic.ValidationError."""
    return Settings(_env_file=env_file)


def demand_settings(env_file: Path | None) -> Settings:
    """The settings, or one sentence for each variable that is missing or wrong. Raises click.ClickException."""
    try:
        return read_settings(env_file)
    except ValidationError as error:
        raise click.ClickException("; ".join(settings_problems(error))) from error


def settings_problems(error: ValidationError) -> list[str]:
    """One sentence per variable. Values are never shown."""
    return [
        f"{'_'.join(map(str, problem['loc'])).upper() or 'settings'}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors()
    ]
