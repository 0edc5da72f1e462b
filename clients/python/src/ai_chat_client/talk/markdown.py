"""Markdown that is still being written: which part of it no further word changes, and how a terminal shows it.

Only text is shown. HTML and definitions of links are text as well, since what an agent writes must not vanish; the
address of a link stands behind it, and is not hidden in it."""

import re
from typing import ClassVar, Final, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.syntax import Syntax

_PARSER: Final = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("reference")

_NUMBER: Final = re.compile(r"\n *\d+$")
"""The last line, if it may become an item of the list before it."""


class Finished(NamedTuple):
    """The part of a text that is finished."""

    length: int
    """Characters."""
    item: int | None
    """If the rest continues a list: the number of its next item, 0 without numbers."""


def finished(text: str, item: int | None = None) -> Finished:
    """All blocks of the text but the last, which further words may change. Of a list, all items but the last.

    `item`: the number of the first item, if the text continues a list."""
    starts: list[tuple[int, int | None]] = []
    for token in parsed(_NUMBER.sub("", text), item):
        if token.map is None or token.nesting < 0:
            continue
        if token.level == 0:
            starts.append((token.map[0], None))
            number = int(token.attrs.get("start", 1)) if token.type == "ordered_list_open" else 0
            in_list = token.type in ("ordered_list_open", "bullet_list_open")
        elif token.level == 1 and token.type == "list_item_open" and in_list and token.map[0] > starts[-1][0]:
            number += 1 if number else 0
            starts.append((token.map[0], number))
    if len(starts) < 2:
        return Finished(0, None)
    line, item = starts[-1]
    return Finished(sum(len(one) + 1 for one in text.split("\n")[:line]), item)


def parsed(text: str, item: int | None = None) -> list[Token]:
    """The tokens of a clean text, whose first list item has this number."""
    tokens = _PARSER.parse(text)
    if item and tokens and tokens[0].type == "ordered_list_open":
        tokens[0].attrSet("start", item)
    return tokens


class _Heading(Heading):
    """At the left, like the rest of a conversation."""

    LEVEL_ALIGN: ClassVar = dict.fromkeys(Heading.LEVEL_ALIGN, "left")


class _Code(CodeBlock):
    """In the terminal's own colours. Outside of lists its lines are as long as they are, so that they can be copied."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        syntax = Syntax("", self.lexer_name, theme="ansi_dark", background_color="default")
        code = syntax.highlight(str(self.text).expandtabs(4))
        code.rstrip()
        code.no_wrap = options.max_width == console.width
        code.overflow = "ignore" if code.no_wrap else "fold"
        yield code


class AgentMarkdown(Markdown):
    """A clean text as Markdown. A line break in the text is one on the screen, as people expect of a chat."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _Code,
        "code_block": _Code,
    }

    def __init__(self, text: str, item: int | None = None) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = parsed(text, item)
        for token in self.parsed:
            for child in token.children or ():
                _break(child)


def _break(token: Token) -> None:
    if token.type == "softbreak":
        token.type = "hardbreak"
