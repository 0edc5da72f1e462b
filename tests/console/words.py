"""The console's words as people read them. Tests name a control in English, and its dictionary in the sources says what
it is called in another language."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parents[2] / "console" / "src"
DICTIONARY: Final = re.compile(r"dictionary\(\s*\{\n(.*?)\n\s*\},\s*\{\n(.*?)\n\s*\},?\s*\)", re.DOTALL)
VIEW: Final = re.compile(r"(?:([a-z]+): )?(.*)")
ENTRY: Final = re.compile(r'^\s*(\w+): "((?:[^"\\]|\\.)*)",$', re.MULTILINE)
"""Sentences that are put together are left out."""


class Words:
    """`words["Send"]` is that word in the person's language. Where views differ, `words["admin: Block"]` is that of a
    view, the folder of its sources."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._russian = _russian() if language == "ru" else {}

    def __getitem__(self, english: str) -> str:
        view, word = VIEW.fullmatch(english).groups()  # type: ignore[union-attr] # it matches every line
        if self.language == "en":
            return word
        found = {russian for place, russian in self._russian[word] if view in (None, place)}
        assert len(found) == 1, f"{english!r} in Russian: {found or 'unknown'}"
        return found.pop()


def _russian() -> dict[str, set[tuple[str, str]]]:
    """English → the views that say it, with what they say in Russian."""
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for path in sorted(SOURCES.rglob("*.ts*")):
        view = path.relative_to(SOURCES).parts[0] if path.parent != SOURCES else "frame"
        for dictionary in DICTIONARY.finditer(path.read_text("utf-8")):
            english, russian = (dict(ENTRY.findall(half)) for half in dictionary.groups())
            for key, word in english.items():
                if key in russian:
                    found[word].add((view, russian[key]))
    return found
