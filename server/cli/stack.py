"""The commands that inspect and stop the local stack: options and output."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from server.stack import control
from server.stack.errors import StackError
from server.terminal import echo, echo_log, printable

data_dir_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, readable=False),
    default=Path(".chat"),
    show_default=True,
    envvar="CHAT_DATA_DIR",
    show_envvar=True,
    help="The directory of the local stack's software and data.",
)


@click.command()
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="A list of {name, pid, port, state, rss}; rss in bytes.")
def status(data_dir: Path, as_json: bool) -> None:
    """Show every service of the local stack."""
    with sentences():
        rows = control.status(data_dir)
    if as_json:
        echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    echo(f"{'service':<10} {'state':<11} {'pid':>7} {'port':>6} {'memory':>9}")
    for row in rows:
        memory = f"{row.rss / 1024**2:.0f} MiB" if row.rss else ""
        echo(f"{row.name:<10} {row.state:<11} {row.pid or '':>7} {row.port or '':>6} {memory:>9}")


@click.command()
@data_dir_option
@click.argument("service")
@click.option("-f", "--follow", is_flag=True, help="Continue with new lines.")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True, help="Number of last lines.")
def logs(data_dir: Path, service: str, follow: bool, lines: int) -> None:
    """Show the log of SERVICE; the service `stack` is `chat up` itself."""
    with sentences():
        if follow:
            for text in control.follow_log(data_dir, service, lines):
                echo_log(text, nl=False)
        else:
            for line in control.recent_log(data_dir, service, lines):
                echo_log(line)


@click.command()
@data_dir_option
@click.option("--to", metavar="ADDRESS", help="Only mails to this address.")
@click.option("-n", "--number", type=click.IntRange(1), default=10, show_default=True, help="How many, at most.")
@click.option("--json", "as_json", is_flag=True, help="A list of {at, to, subject, kind, link, code, text}.")
def mails(data_dir: Path, to: str | None, number: int, as_json: bool) -> None:
    """Show the newest mails of the local Supabase, which are not sent: confirmations, recovery and magic links."""
    with sentences():
        found = control.mails(data_dir, to)[-number:]
    if as_json:
        echo(json.dumps([asdict(mail) for mail in found], indent=1))
        return
    if not found:
        echo("No mails.")
    for mail in found:
        lines = [f"{mail.at}  {mail.to}  {mail.subject}", mail.link, mail.code and f"code {mail.code}"]
        echo("\n    ".join(printable(line) for line in lines if line))


@click.command()
@data_dir_option
@click.option("--wipe", is_flag=True, help="Delete the data directory too: every user, conversation and key in it.")
@click.option("--yes", is_flag=True, help="Do not ask before deleting.")
def down(data_dir: Path, wipe: bool, yes: bool) -> None:
    """Stop the local stack, also one that runs in another terminal."""
    if wipe and not yes:
        click.confirm(f"Delete {data_dir.absolute()} with all its data?", abort=True)
    with sentences():
        echo("Stopped." if control.down(data_dir) else "Nothing was running.")
        if wipe:
            control.wipe(data_dir)
            echo(f"Deleted {data_dir.absolute()}.")


@contextmanager
def sentences() -> Iterator[None]:
    """Print an error of the stack as one sentence on standard error, with exit code 1."""
    try:
        yield
    except StackError as error:
        echo(f"chat: {error}", err=True, fg="red")
        sys.exit(1)
    except PermissionError as error:
        echo(f"chat: no permission for {error.filename}; run it as the user of `chat up`", err=True, fg="red")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
