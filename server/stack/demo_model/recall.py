"""Finds facts in Letta's memory block, and the fact that a question is about.

Pure text processing for English and Russian. Two words match if they begin alike, which covers most inflections."""

import re
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_SAME_WORD = {
    "color": "colour",
    "favorite": "favourite",
    "зовут": "name",
    "звать": "name",
    "имя": "name",
    "имени": "name",
}
# Words without information about the subject of a question.
_ENGLISH = (
    "a about am an and are as ask at be been best by can could did do does for from had has have hello hey hi how i "
    "i'm in is it know like me mine my of on or please remember said say so tell that the there they this to told us "
    "was we were what what's when where which who who's whose why will with would you your yours user user's"
)
_RUSSIAN = (
    "а бы был была были в вам вас вы где да для до ж же за знаешь знаете и из или как какая какие какое какой когда "
    "кого кто ли меня мне мной мною мои моих мой моя моё мою моего моей моём на не но о об обо он она они от по "
    "помнишь помните почему пожалуйста привет про с сколько скажи так там твоё твой твоя тебе тебя то ты у чей что "
    "чья это этот я"
)
_EMPTY_WORDS = frozenset(_ENGLISH.split() + _RUSSIAN.split())

_STEM = 4
_ENDING = 3


def memory_lines(system_text: str, label: str) -> list[str]:
    """The lines of one memory block in a system prompt of Letta 0.16, without bullets."""
    block = re.search(rf"<{re.escape(label)}>.*?<value>\n?(.*?)\n?</value>\s*</{re.escape(label)}>", system_text, re.S)
    if block is None:
        return []
    return [line for raw in block[1].splitlines() if (line := raw.strip().lstrip("-•* ").strip())]


def keywords(text: str) -> list[str]:
    """The words of the text's subject, in order, in lower case and normalized spelling."""
    words = (word.casefold().replace("’", "'") for word in _WORD.findall(text))
    plain = (word.removesuffix("'s") for word in words if word not in _EMPTY_WORDS)
    return [_SAME_WORD.get(word, word) for word in plain]


def best_match(question: str, lines: Sequence[str]) -> str | None:
    """The line with most keywords of the question, the latest of equals; None if no line has more than half of them."""
    wanted = keywords(question)
    best: str | None = None
    best_score = len(wanted) / 2
    for line in lines:
        present = keywords(line)
        score = sum(any(_alike(word, other) for other in present) for word in wanted)
        if score > len(wanted) / 2 and score >= best_score:
            best, best_score = line, score
    return best


def same_fact(fact: str, lines: Iterable[str]) -> bool:
    """Whether one of the lines has the same words, regardless of case and punctuation."""
    words = [word.casefold() for word in _WORD.findall(fact)]
    return any([word.casefold() for word in _WORD.findall(line)] == words for line in lines)


def _alike(one: str, other: str) -> bool:
    if one == other:
        return True
    shorter = min(len(one), len(other))
    shared = min(shorter, max(_STEM, max(len(one), len(other)) - _ENDING))
    return shorter >= 3 and one[:shared] == other[:shared]
