"""The `chat` command: each subcommand imports what it needs when it runs, so that `chat --help` is instant."""

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run and operate the AI Chat Platform."""
