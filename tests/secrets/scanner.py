"""Finds secrets in text from named places. Where a kind of secret is stored on purpose is data: `Stored`."""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import quote

SHORTEST = 12
"""Characters. Shorter values would be found by accident."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A kind of secret that belongs into the places that match the pattern `place`."""

    kind: str
    place: str
    why: str

    def covers(self, kind: str, place: str) -> bool:
        return fnmatchcase(kind, self.kind) and fnmatchcase(place, self.place)


@dataclass(frozen=True, slots=True, order=True)
class Leak:
    """A secret where it must not be. Its value is not shown."""

    place: str
    kind: str
    form: str

    def __str__(self) -> str:
        return f"{self.place}: {self.kind} ({self.form})"


@dataclass(slots=True)
class Scanner:
    """Knows secrets by kind, and collects the leaks in the texts that it reads.

    Texts that are read before a secret is known are read again in `leaks`: a token is known only after its answer.
    """

    stored: tuple[Stored, ...] = ()
    _kinds: dict[str, str] = field(default_factory=dict)
    """Kind by value."""
    _texts: list[tuple[str, str]] = field(default_factory=list)

    def learn(self, kind: str, value: str) -> str:
        """Look for this value from now on, and in what was read before. Returns it."""
        assert len(value) >= SHORTEST, f"this {kind} is too short to be told from other text"
        self._kinds.setdefault(value, kind)
        return value

    def read(self, place: str, text: str) -> None:
        """Read what is at a place."""
        self._texts.append((place, text))

    @property
    def kinds(self) -> set[str]:
        return set(self._kinds.values())

    @property
    def places(self) -> set[str]:
        return {place for place, _ in self._texts}

    def leaks(self) -> list[Leak]:
        """All secrets found where no exception allows them."""
        found = self._found()
        return sorted(leak for leak in found if not any(one.covers(leak.kind, leak.place) for one in self.stored))

    def around(self, leak: Leak) -> str:
        """What surrounds the first appearance of a leak, without any secret."""
        for place, text in self._texts:
            for value, kind in self._kinds.items():
                needle = dict(forms(value)).get(leak.form) if (place, kind) == (leak.place, leak.kind) else None
                if needle is not None and (at := text.find(needle)) >= 0:
                    return self._hidden(text[max(0, at - 300) : at + len(needle) + 100])
        return ""

    def _hidden(self, text: str) -> str:
        for value, kind in self._kinds.items():
            for _, needle in forms(value):
                text = text.replace(needle, f"<{kind}>")
        return text

    def unused(self) -> list[Stored]:
        """Exceptions that allow nothing that was found."""
        found = self._found()
        return [one for one in self.stored if not any(one.covers(leak.kind, leak.place) for leak in found)]

    def _found(self) -> set[Leak]:
        needles = [(form, text, kind) for value, kind in self._kinds.items() for form, text in forms(value)]
        return {
            Leak(place, kind, form) for place, text in self._texts for form, needle, kind in needles if needle in text
        }


def forms(value: str) -> Iterator[tuple[str, str]]:
    """The value as it may be written: plainly, in a URL, in JSON, in base64 at each alignment, in hexadecimal."""
    raw = value.encode()
    yield "plain", value
    yield from _others(value, ("in a URL", quote(value, safe="")), ("in JSON", value.replace("/", "\\/")))
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        whole = encoded[(0, 2, 3)[shift] : len(encoded) // 4 * 4 - 4].decode()  # what no neighbour can change
        yield from _others(value, ("in base64", whole), ("in base64url", whole.translate(_URLSAFE)))
    yield "in hexadecimal", raw.hex()


def _others(value: str, *written: tuple[str, str]) -> Iterable[tuple[str, str]]:
    return [(form, text) for form, text in written if text != value and len(text) >= SHORTEST]


_URLSAFE = str.maketrans("+/", "-_")
