"""`chat talk`: the terminal app of the Python client. A deployed server has neither that nor what it draws with."""

import click

try:
    from ai_chat_client.talk.command import talk
except ImportError as _missing:
    _reason = f"`chat talk` needs the Python client with its extra `talk`: {_missing}. A checkout has both: `uv sync`."

    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1)
    def talk(words: tuple[str, ...]) -> None:
        """Talk to your agent in this terminal."""
        raise click.ClickException(_reason)


__all__ = ["talk"]
