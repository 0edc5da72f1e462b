"""Answers of the REST API as tables and lines."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ai_chat_client.talk.clean import clean, one_line
from ai_chat_client.talk.markdown import AgentMarkdown
from ai_chat_client.talk.paint import price

PAGE = 10
"""Messages of one page of the history."""
AROUND = 60
"""Characters before a hit, and half of those behind it."""
BAR = 20
"""Characters."""
KEYS = (
    ("Enter", "send; while a reply runs, the message waits"),
    ("Alt-Enter", "a new line"),
    ("↑ ↓", "what you typed before"),
    ("Tab", "complete a command"),
    ("Ctrl-C", "stop the reply; twice, or if nothing runs: quit"),
    ("Ctrl-D", "quit"),
)


def table(*parts: Iterable[tuple[str, str]]) -> RenderableType:
    """Names and sentences in two columns."""
    shown = Table.grid(padding=(0, 2))
    for number, part in enumerate(parts):
        if number:
            shown.add_row("", "")
        for name, text in part:
            shown.add_row(Text(one_line(name), "bold"), Text(one_line(text)))
    return shown


def memory(answer: Mapping[str, Any]) -> RenderableType:
    """Blocks, the newest passages, and how full the context window is."""
    parts: list[RenderableType] = []
    for block in answer["blocks"]:
        value, limit = block["value"], block["limit"]
        parts.append(
            Text(one_line(block["label"]), "bold").append(f"  {len(value):,} of {limit:,} characters", "quiet")
        )
        parts.append(Text(clean(value).strip() or "(empty)", "" if value.strip() else "quiet"))
        parts.append(Text(""))
    parts.append(Text("archive", "bold"))
    parts.append(passages(answer["archival"], "(empty)"))
    window, used = answer["context"]["window"], answer["context"]["used"]
    full = min(round(BAR * used / window), BAR) if window else 0
    bar = f"{'█' * full}{'░' * (BAR - full)}"
    parts += [Text(""), Text("context", "bold").append(f"  {bar}  {used:,} of {window:,} tokens", "quiet")]
    return Group(*parts)


def passages(page: Mapping[str, Any], empty: str) -> RenderableType:
    """Passages of the archive."""
    lines = [Text(f"{_day(one['created_at'])}  ", "quiet").append(clean(one["text"]), "none") for one in page["data"]]
    if page["has_more"]:
        lines.append(Text("… and more; /memory with words searches them", "quiet"))
    return Group(*lines) if lines else Text(empty, "quiet")


def usage(answer: Mapping[str, Any]) -> RenderableType:
    """Totals, models and the budget."""
    total = answer["total"]
    rows = [("messages", f"{total['messages']:,}"), ("tokens", f"{total['tokens']:,}"), ("cost", price(total["cost"]))]
    rows += [
        (one["model"], f"{one['tokens']:,} tokens in {one['model_calls']:,} calls, {price(one['cost'])}")
        for one in answer.get("models") or ()
    ]
    if budget := answer.get("budget"):
        limit = price(budget["limit"]) if budget["limit"] else "no limit"
        until = f", until {_day(budget['resets_at'])}" if budget["resets_at"] else ""
        rows.append(("budget", f"{price(budget['spent'])} of {limit}{until}"))
    return table(rows)


def devices(answer: Mapping[str, Any]) -> RenderableType:
    """Sign-ins, each with its open connections; and those of API keys."""
    open_of: dict[str | None, list[str]] = {}
    for one in answer["connections"]:
        open_of.setdefault(one["session_id"], []).append(one["kind"])
    rows = []
    for one in answer["data"]:
        device = one_line(one["user_agent"] or "unknown device")
        here = "this terminal" if one["current"] else device
        kinds = ", ".join(open_of.pop(one["id"], [])) or "not connected"
        rows.append((_day(one["created_at"]), f"{here} · {one_line(one['address'] or '')} · {kinds}"))
    rows += [("", f"by API key · {kind}") for kinds in open_of.values() for kind in kinds]
    return table(rows) if rows else Text("No sign-in is known.", "quiet")


def history(page: Mapping[str, Any], *, has_more: bool) -> RenderableType:
    """A page of messages, oldest first."""
    parts: list[RenderableType] = []
    for message in reversed(page["data"]):
        at, text = Text(_day(message["created_at"]), "quiet"), clean(message["content"])
        if message["role"] == "user":
            parts += [at, Text(f"❯ {text}", "user")]
        elif text:
            parts += [AgentMarkdown(text), Text("")]
    if not parts:
        return Text("There are no messages yet.", "quiet")
    more = "/history again shows older ones." if has_more else "This is the beginning of the conversation."
    return Group(*parts, Text(more, "quiet"))


def found(page: Mapping[str, Any], words: str) -> RenderableType:
    """Messages with the words of a search, oldest first: each as a line around the first hit."""
    if not page["data"]:
        return Text(f"No message has “{one_line(words)}”.", "quiet")
    hit = re.compile("|".join(rf"\b{re.escape(word)}" for word in one_line(words).split()), re.IGNORECASE)
    parts = [Text("There are older ones, too.", "quiet")] if page["has_more"] else []
    for message in reversed(page["data"]):
        text = one_line(message["content"])
        first = hit.search(text)
        begin = max((first.start() if first else 0) - AROUND, 0)
        shown = ("…" if begin else "") + text[begin : begin + 3 * AROUND]
        line = Text(f"{_day(message['created_at'])}  {'❯' if message['role'] == 'user' else ' '} ", "quiet")
        excerpt = Text(f"{shown}{'…' if len(text) > begin + 3 * AROUND else ''}", "none")
        excerpt.highlight_regex(hit, "bold yellow")
        parts.append(line.append_text(excerpt))
    return Group(*parts)


def _day(moment: str) -> str:
    return one_line(moment)[:16].replace("T", " ")
