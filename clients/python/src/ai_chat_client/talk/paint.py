"""Draws entries as text with colours. Everything that comes from elsewhere is cleaned on its way to the terminal, here
and nowhere else, after all markup has been resolved: an entity of Markdown can be a control character, too."""

import io
import json
import os
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text
from rich.theme import Theme

from ai_chat_client.errors import ChatError
from ai_chat_client.state import ChatMessage, ToolCall
from ai_chat_client.talk.clean import clean, one_line
from ai_chat_client.talk.markdown import AgentMarkdown
from ai_chat_client.talk.transcript import Ended, Entry, Live, Note, Said, Thought, Used, Wrote

_THEME: Final = Theme(
    {
        "markdown.code": "cyan",
        "markdown.h1": "bold underline",
        "user": "bold cyan",
        "tool": "magenta",
        "error": "red",
        "warning": "yellow",
        "quiet": "dim",
    }
)
_MARKS: Final = {"running": "…", "success": "✓", "error": "✗", "denied": "✗"}
_ARGUMENTS: Final = 160
"""Characters of a tool's arguments."""
_TOOLS: Final = {
    "memory_insert": "remembers",
    "memory_replace": "corrects its memory",
    "archival_memory_insert": "files away",
    "archival_memory_search": "searches its archive",
    "conversation_search": "searches the conversation",
}
"""What the agent's own tools do."""
_TOLD: Final = ("label", "old_string", "new_string", "content", "query")
"""Their arguments that say it; the others are numbers."""


class Paper:
    """Draws at a width of so many cells. `colours` False: none, as NO_COLOR asks."""

    def __init__(self, *, colours: bool = True) -> None:
        self._no_colour = not colours or bool(os.environ.get("NO_COLOR"))
        self._last: Entry | None = None

    def final(self, entries: Iterable[Entry], width: int) -> str:
        """The lines of these entries, as a continuation of those before."""
        text = ""
        for entry in entries:
            text += "\n" if _needs_gap(self._last, entry) else ""
            text += self._trimmed(_drawn(entry), width)
            self._last = entry
        return text

    def live(self, live: Live, width: int) -> list[str]:
        """The lines of what may still change."""
        text = "".join(self._trimmed(part, width) for part in _live_parts(live))
        for message in live.waiting:
            text += "\n" + self._trimmed(_waiting(message), width)
        if not text:
            return []
        is_rest = bool(live.text.strip()) and not live.thought.strip() and not live.tools
        is_apart = not (is_rest and live.item is not None) and not text.startswith("\n")
        return ("\n" + text if is_apart else text).split("\n")[:-1]

    def _trimmed(self, what: RenderableType, width: int) -> str:
        """Its lines, without the empty ones around them that lists and tables have."""
        lines = self.draw(what, width).strip("\n")
        return f"{lines}\n" if lines else ""

    def draw(self, what: RenderableType, width: int) -> str:
        """Lines of any kind."""
        page = io.StringIO()
        console = Console(
            file=page,
            width=max(width, 10),
            force_terminal=True,
            force_jupyter=False,
            legacy_windows=False,
            no_color=self._no_colour,
            theme=_THEME,
            highlight=False,
            emoji=False,
            markup=False,
        )
        console.print(_Cleaned(what), crop=False, end="")
        return page.getvalue()


class _Cleaned:
    """What a renderable draws, without control characters and without blanks at the ends of lines."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        segments = (part for part in console.render(self._inner, options) if not part.control)
        for line in Segment.split_lines(segments):
            shown = [Segment(clean(part.text).replace("\t", "    ").replace("\n", " "), part.style) for part in line]
            while shown and not shown[-1].text.rstrip(" "):
                shown.pop()
            if shown:
                last = shown.pop()
                shown.append(Segment(last.text.rstrip(" "), last.style))
            yield from shown
            yield Segment.line()


def tool_line(tool: ToolCall) -> str:
    """A tool call in words."""
    try:
        given = json.loads(tool.arguments)
    except (ValueError, RecursionError):
        given = None  # it was cut, or is nested too deeply
    if isinstance(given, dict):
        shown = " · ".join(str(given[name]) for name in (_TOLD if tool.name in _TOOLS else given) if name in given)
    else:
        shown = tool.arguments
    shown = one_line(shown)
    if len(shown) > _ARGUMENTS:
        shown = shown[: _ARGUMENTS - 1] + "…"
    return f"{_MARKS[tool.status]} {one_line(_TOOLS.get(tool.name, tool.name))}{': ' if shown else ''}{shown}"


def price(amount: str | None) -> str:
    """US dollars without needless zeros."""
    try:
        return f"${Decimal(amount or '').normalize():f}"
    except InvalidOperation:
        return "$?"


def sentence(error: ChatError) -> str:
    """What happened, and what one can do about it."""
    told = one_line(error.message)
    if error.budget:
        spent, limit = price(error.budget.spent), price(error.budget.limit)
        told += (
            f" Spent {spent} of {limit}; it resets at {one_line(error.budget.resets_at)[:16].replace('T', ' ')} UTC."
        )
    elif error.retry_after:
        told += f" Try again in {error.retry_after:.0f} s."
    for field in error.errors:
        told += f" {one_line(field['detail'])}."
    return told


def _drawn(entry: Entry) -> RenderableType:
    match entry:
        case Said(text, is_elsewhere):
            return _said(text, "user", " (another device)" if is_elsewhere else "")
        case Thought(text):
            words = len(text.split())
            return Text(f"∴ thought for {words} {'word' if words == 1 else 'words'} (/reasoning shows them)", "quiet")
        case Used(tool):
            return Text(tool_line(tool), "error" if tool.status in ("error", "denied") else "tool")
        case Wrote(text, item):
            return AgentMarkdown(text, item)
        case Ended(message):
            return _ended(message)
        case Note(text):
            return Text(clean(text), "quiet")


def _said(text: str, style: str, remark: str) -> RenderableType:
    lines = text.strip("\n").split("\n")
    shown = Text("\n".join([f"❯ {lines[0]}", *(f"  {line}" for line in lines[1:])]), style)
    return shown.append(remark, "quiet")


def _ended(message: ChatMessage) -> RenderableType:
    """The figures of a reply, or why there is none."""
    parts = []
    if usage := message.usage:
        calls = usage["model_calls"]
        parts += [f"{usage['total_tokens']:,} tokens", f"{calls} model {'call' if calls == 1 else 'calls'}"]
    if message.cost is not None:
        parts.append(price(message.cost))
    figures = " · ".join(parts)
    retry = " /retry tries again." if message.can_retry else ""
    if message.error:
        return Group(
            Text(f"✗ {sentence(message.error)}{retry}", "error"), *([Text(figures, "quiet")] if figures else [])
        )
    if message.status == "partial":
        return Text(f"■ Stopped.{retry}", "warning").append(f" {figures}" if figures else "", "quiet")
    if message.role == "user":
        return Text(f"✗ There is no reply.{retry}", "warning")
    if message.note and not message.text:
        return Text(f"(no text: {one_line(message.note)}) {figures}", "quiet")
    return Text(figures, "quiet") if figures else Group()


def _live_parts(live: Live) -> Iterable[RenderableType]:
    if live.thought.strip():
        yield Text(" ".join(live.thought.split())[-400:], "quiet italic")
    for tool in live.tools:
        yield Text(tool_line(tool), "tool")
    if live.text.strip():
        yield AgentMarkdown(live.text, live.item)
    elif live.is_running and not live.thought.strip():
        yield Text("…", "quiet")


def _waiting(message: ChatMessage) -> RenderableType:
    text, why = one_line(message.text), "waits" if message.status == "queued" else "not sent yet"
    if message.error:
        why = f"{why}: {one_line(message.error.message)}"
    return Text(f"❯ {text[:200]}", "user").append(f"  ({why})", "quiet")


def _needs_gap(last: Entry | None, entry: Entry) -> bool:
    """Whether an empty line stands before the entry."""
    match last, entry:
        case (None, _) | (Used() | Thought(), Used()):
            return False
        case (_, Wrote(_, item)):
            return item is None
        case (_, Ended(message)):
            return bool(message.error) or message.usage is not None or message.cost is not None or message.can_retry
        case _:
            return True
