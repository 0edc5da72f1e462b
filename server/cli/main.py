"""The `chat` command. Each subcommand is imported when it runs, so that `chat --help` is instant."""

from typing import Any

import click

from server.cli.lazy_group import LazyGroup
from server.terminal import printable

COMMANDS = {
    "up": ("server.cli.up:up", "Install and run everything on this machine."),
    "talk": ("server.cli.talk:talk", "Talk to your agent in this terminal."),
    "down": ("server.cli.stack:down", "Stop what `chat up` runs."),
    "status": ("server.cli.stack:status", "Show every service of the local stack."),
    "logs": ("server.cli.stack:logs", "Show what a service of the local stack wrote."),
    "mails": ("server.cli.stack:mails", "Show what the local stack's Supabase would have mailed."),
    "serve": ("server.cli.serve:serve", "Run the API server alone, against the services in the environment."),
    "users": ("server.cli.users:users", "Show the state of users' agents, and repair them."),
    "billing": ("server.cli.billing:billing", "Verify and reconcile users' charges."),
    "doctor": ("server.cli.doctor:doctor", "Check settings and services, and say how to fix problems."),
    "migrate": ("server.cli.migrate:migrate", "Bring the database's schema up to date."),
}
"""Name → module and name of the click command, and its line in `chat --help`."""


class MainGroup(LazyGroup):
    """The commands of COMMANDS; the help page imports none of them."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its error is printed with control characters escaped."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            message = error.format_message()
            shown = printable(message, keep="\n")
            if shown == message:
                raise
            if isinstance(error, click.UsageError):
                raise click.UsageError(shown, error.ctx) from None
            raise click.ClickException(shown) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=MainGroup,
    places={name: place for name, (place, _) in COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"]},
)
def main() -> None:
    """Run and operate the AI Chat Platform."""
