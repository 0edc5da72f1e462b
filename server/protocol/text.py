"""Whether a text has visible characters, and where it may be cut. Pure."""

import unicodedata
from typing import Final

_UNSEEN_CATEGORIES: Final = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Cs"})
"""Spaces, control and format characters, halves of surrogate pairs."""
_UNSEEN: Final = frozenset(
    [
        *"\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufffe\uffff",
        *map(chr, range(0x180B, 0x1810)),
        *map(chr, range(0xFE00, 0xFE10)),
        *map(chr, range(0xE0000, 0xE1000)),
    ]
)
"""Invisible letters, marks and symbols: fillers, joiners, the empty Braille pattern, variation selectors."""


def clip(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, cut between characters."""
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def is_readable(text: str) -> bool:
    """Whether the text has a visible character: a letter, a digit, a sign, an emoji."""
    return any(_is_visible(character) for character in text)


def _is_visible(character: str) -> bool:
    if character.isalnum() and character < "\u0250":
        return True
    return character not in _UNSEEN and unicodedata.category(character) not in _UNSEEN_CATEGORIES
