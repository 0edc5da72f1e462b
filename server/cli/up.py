"""`chat up`: its options."""

from pathlib import Path

import click

from server.cli.stack import data_dir_option, sentences
from server.stack.up import Options
from server.stack.up import up as run_stack


@click.command()
@data_dir_option
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="The API server's port.")
@click.option("--no-server", is_flag=True, help="Run the services only, for working on the server with `chat serve`.")
def up(data_dir: Path, port: int, no_server: bool) -> None:
    """Install what is missing and run everything on this machine, in the foreground, until Ctrl-C.

    OPENAI_API_KEY (and OPENAI_BASE_URL) in the environment select the model; without them a small demo model runs."""
    with sentences():
        run_stack(Options(data_dir, port, with_server=not no_server))
