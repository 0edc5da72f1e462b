"""What commands write to a terminal. Much of it was typed by strangers or comes from services: an e-mail address, a
model's name, a log line. No character of it may act on the terminal, or turn the text around."""

import re
from typing import Final

import click

_COLOURS: Final = re.compile(r"\x1b\[[0-9;:]*m")


def printable(text: str, keep: str = "") -> str:
    """The text with each control, invisible or direction-changing character written as `\\xNN` or `\\uNNNN`, unless it
    is in `keep`."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escaped(one) for one in text)


def echo(text: str = "", *, err: bool = False, fg: str | None = None, nl: bool = True) -> None:
    """Write lines of text. What is put into a line and must not begin a new one goes through `printable` before."""
    click.secho(printable(text, keep="\n\t"), err=err, fg=fg, nl=nl)


def echo_log(text: str, *, nl: bool = True) -> None:
    """Write what a program wrote for a terminal, without its colours."""
    echo(_COLOURS.sub("", text).replace("\r\n", "\n"), nl=nl)


def coloured(text: str, fg: str) -> str:
    """A printable piece of a line for `echo_coloured`."""
    return click.style(printable(text), fg=fg)


def echo_coloured(text: str) -> None:
    """Write lines whose every piece went through `printable` or `coloured`."""
    click.echo(text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
