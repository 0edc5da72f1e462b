"""Output of commands to a terminal. Much of it comes from users or services: e-mail addresses, names of models, log
lines. Their control characters and changes of text direction are escaped."""

import re
from typing import Final

import click

_COLOURS: Final = re.compile(r"\x1b\[[0-9;:]*m")


def printable(text: str, keep: str = "") -> str:
    """The text with control, invisible and direction-changing characters written as `\\xNN` or `\\uNNNN`, except those
    in `keep`."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escaped(one) for one in text)


def echo(text: str = "", *, err: bool = False, fg: str | None = None, bold: bool = False, nl: bool = True) -> None:
    """Write lines of text. Pass values that must not begin a new line through `printable` first."""
    click.secho(printable(text, keep="\n\t"), err=err, fg=fg, bold=bold or None, nl=nl)


def echo_log(text: str, *, nl: bool = True) -> None:
    """Write a program's output without its colours."""
    echo(_COLOURS.sub("", text).replace("\r\n", "\n"), nl=nl)


def coloured(text: str, fg: str) -> str:
    """A coloured, printable part of a line for `echo_coloured`."""
    return click.style(printable(text), fg=fg)


def echo_coloured(text: str) -> None:
    """Write lines that consist of results of `printable` and `coloured`."""
    click.echo(text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
