"""Text from elsewhere as a terminal may get it. What an agent, another device or a server writes can hold sequences
that move the cursor, rename the window or paste; none of them may reach the terminal."""

import re
import unicodedata
from typing import Final

_JOINERS: Final = "\u200c\u200d\u200e\u200f\u061c"
"""Zero-width (non-)joiners and marks of direction: Persian, emoji and mixed text are wrong without them, and they reach
no further than the next character. Embeddings, overrides and isolates do, and are removed."""
_SPECIAL: Final = re.compile(r"[^\x20-\x7e\n]")


def clean(text: str) -> str:
    """The text without control characters but `\\n` and `\\t`: control characters are shown as `\\xNN`, invisible ones
    are removed. The clean text of a beginning is the beginning of the clean text."""
    return _SPECIAL.sub(_harmless, text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """The clean text with single spaces for all white space."""
    return " ".join(clean(text).split())


def _harmless(found: re.Match[str]) -> str:
    character = found[0]
    match unicodedata.category(character):
        case "Cc":
            return character if character == "\t" else f"\\x{ord(character):02x}"
        case "Cf":
            return character if character in _JOINERS else ""
        case "Cs":
            return "\N{REPLACEMENT CHARACTER}"
        case "Zl" | "Zp":
            return "\n"
        case _:
            return character
