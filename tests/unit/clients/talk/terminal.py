"""A terminal that tests can read: the screen and what scrolled out of it, as a person sees them."""

import asyncio
from collections.abc import Callable

import pyte
from prompt_toolkit.data_structures import Size

from ai_chat_client.talk.screen import SteadyOutput

SECONDS = 300
"""A generous limit."""


class FakeTerminal:
    """Interprets what is written to it. `raw` is all of it."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.raw = ""
        self.pictures: list[list[str]] = []
        """The screen after each write."""
        self._screen = pyte.HistoryScreen(columns, rows, history=100_000, ratio=0.5)
        self._stream = pyte.Stream(self._screen)
        self._written = asyncio.Event()

    def output(self) -> SteadyOutput:
        """What an app writes to."""
        size = Size(rows=self._screen.lines, columns=self._screen.columns)
        return SteadyOutput(self, lambda: size, term="xterm-256color", enable_cpr=False)  # type: ignore[arg-type]

    def write(self, text: str) -> int:
        self.raw += text
        self._stream.feed(text)
        self.pictures.append(self.screen())
        self._written.set()
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """The lines that are visible."""
        return [line.rstrip() for line in self._screen.display]

    def lines(self) -> list[str]:
        """All lines, without the empty ones at the end."""
        scrolled = [
            "".join(line[column].data for column in range(self._screen.columns)).rstrip()
            for line in self._screen.history.top
        ]
        return "\n".join([*scrolled, *self.screen()]).rstrip("\n").split("\n")

    def text(self) -> str:
        return "\n".join(self.lines())

    async def until(self, seen: Callable[[], bool], what: str = "") -> None:
        """Return when the condition holds after something was written, or holds now."""
        try:
            async with asyncio.timeout(SECONDS):
                while not seen():
                    self._written.clear()
                    await self._written.wait()
        except TimeoutError:
            raise AssertionError(f"the terminal never showed {what}:\n{self.text()}") from None

    async def shows(self, *texts: str) -> None:
        """Return when all these texts are there."""
        await self.until(lambda: all(text in self.text() for text in texts), repr(texts))
