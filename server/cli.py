"""The `chat` command: each subcommand imports what it needs when it runs, so that `chat --help` is instant."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

data_dir_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".chat"),
    show_default=True,
    envvar="CHAT_DATA_DIR",
    help="Where the local stack keeps its software and data.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run and operate the AI Chat Platform."""


@main.command()
@data_dir_option
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="The API server's port.")
@click.option("--no-server", is_flag=True, help="Run the services only, for working on the server with `chat serve`.")
def up(data_dir: Path, port: int, no_server: bool) -> None:
    """Install and run everything on this machine: all services and the server, in the foreground.

    OPENAI_API_KEY (and OPENAI_BASE_URL) in the environment serve the model; without them a small demo model does."""
    from server.stack.service import StackError
    from server.stack.up import Options, up

    try:
        up(Options(data_dir, port, with_server=not no_server))
    except StackError as error:
        _fail(error)


def _fail(error: Exception) -> None:
    click.secho(f"chat: {error}", err=True, fg="red")
    sys.exit(1)
