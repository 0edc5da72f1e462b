"""The terminal: what is final scrolls up, and below it stand the rest of the running reply, the input and one line
about the connection. What one change draws is written at once, so that nothing flickers."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.data_structures import Size
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import ANSI, StyleAndTextTuples, to_formatted_text
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import HSplit, Layout, Window
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
from prompt_toolkit.layout.dimension import Dimension
from prompt_toolkit.layout.menus import CompletionsMenu
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style

PAUSE = 0.04
"""Seconds between two pictures, at least."""
INPUT_ROWS = 8
STYLE = Style.from_dict({"prompt": "bold ansicyan", "status": "noreverse", "status.bad": "ansiyellow"})


class SteadyOutput(Vt100_Output):
    """Writes nothing while it is held, and then everything at once. It asks the terminal for nothing."""

    is_held = False

    def flush(self) -> None:
        if not self.is_held:
            super().flush()

    @contextmanager
    def held(self) -> Iterator[None]:
        self.is_held = True
        try:
            yield
        finally:
            self.is_held = False
            self.flush()


def steady_output() -> SteadyOutput:
    """The terminal of standard output."""

    def size() -> Size:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        return Size(rows=rows or 24, columns=columns or 80)

    depth = ColorDepth.from_env()  # NO_COLOR
    return SteadyOutput(sys.stdout, size, term=os.environ.get("TERM"), default_color_depth=depth, enable_cpr=False)


class Actor(Protocol):
    """Who decides what is shown and what keys do."""

    def live(self, width: int) -> list[str]:
        """The lines between what is final and the input."""

    def status(self) -> tuple[str, bool]:
        """The line below the input, and whether all is well."""

    def enter(self, text: str) -> bool:
        """Something was typed. Returns whether it stays in the input."""

    def interrupt(self) -> bool:
        """Ctrl-C with an empty input. Returns whether the app goes on."""


@dataclass(frozen=True, slots=True)
class CommandCompleter(Completer):
    """Completes the name of a command at the beginning of the input."""

    commands: dict[str, str]
    """Name, with the slash → what it does."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        typed = document.text_before_cursor
        if typed.startswith("/") and not document.text_after_cursor:
            for name, does in self.commands.items():
                if name.startswith(typed) and name != typed:
                    yield Completion(name, -len(typed), display_meta=does)


class Screen:
    """`run` shows it until `exit` is called, or the person quits."""

    def __init__(
        self, actor: Actor, terminal: tuple[Input, SteadyOutput], history: History, commands: dict[str, str]
    ) -> None:
        self._actor = actor
        self._input, self._output = terminal
        self._buffer = Buffer(
            multiline=True,
            history=history,
            completer=CommandCompleter(commands),
            complete_while_typing=True,
            accept_handler=lambda buffer: actor.enter(buffer.text),
        )
        self._app: Application[None] = Application(
            layout=Layout(self._rows(), focused_element=self._buffer),
            key_bindings=self._keys(),
            style=STYLE,
            include_default_pygments_style=False,
            erase_when_done=True,
            min_redraw_interval=PAUSE,
            input=self._input,
            output=self._output,
        )

    @property
    def width(self) -> int:
        """Columns."""
        return self._output.get_size().columns

    async def run(self, begin: Callable[[], None]) -> None:
        """`begin` is called once the screen is there. Raises what `exit` was given."""
        await self._app.run_async(pre_run=begin)

    def background(self, work: Any) -> "asyncio.Task[None]":
        """Run a coroutine that may print, until the screen ends."""
        return self._app.create_background_task(work)

    def print(self, text: str) -> None:
        """Lines that stay."""
        if not text:
            return
        text = text.replace("\n", "\r\n")
        if not self._app.is_running:
            self._output.write_raw(text)
            self._output.flush()
            return
        with self._output.held():
            self._app.renderer.erase()
            self._output.write_raw(text)
            self._app.render_counter += 1  # what was computed for the last picture is old
            self._app.renderer.render(self._app, self._app.layout)

    def refresh(self) -> None:
        """Something that is not final has changed."""
        self._app.invalidate()

    def exit(self, error: Exception | None = None) -> None:
        if self._app.is_running and not self._app.is_done:
            if error:
                self._app.exit(exception=error)
            else:
                self._app.exit()

    def _rows(self) -> HSplit:
        typed = Window(
            BufferControl(self._buffer),
            height=Dimension(min=1, max=INPUT_ROWS),
            wrap_lines=True,
            dont_extend_height=True,
            get_line_prefix=lambda number, wrapped: [("class:prompt", "❯ " if number == wrapped == 0 else "  ")],
        )
        live = FormattedTextControl(self._live, show_cursor=False)
        return HSplit(
            [
                Window(live, height=self._live_height, dont_extend_height=True),
                Window(height=1),
                typed,
                CompletionsMenu(max_height=INPUT_ROWS),
                Window(FormattedTextControl(self._status), height=1),
            ]
        )

    def _live_lines(self) -> list[str]:
        """The end of what may still change: as much as there is room for."""
        rows = self._output.get_size().rows - 4 - min(self._buffer.document.line_count, INPUT_ROWS)
        lines = self._actor.live(self.width)
        return lines[-max(rows, 1) :]

    def _live(self) -> StyleAndTextTuples:
        return to_formatted_text(ANSI("\n".join(self._live_lines())))

    def _live_height(self) -> Dimension:
        return Dimension(min=0, preferred=len(self._live_lines()))

    def _status(self) -> StyleAndTextTuples:
        text, is_well = self._actor.status()
        return [("class:status" if is_well else "class:status.bad", text)]

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter")
        def _(event: KeyPressEvent) -> None:
            chosen = self._buffer.complete_state and self._buffer.complete_state.current_completion
            if chosen:
                self._buffer.apply_completion(chosen)
            else:
                self._buffer.validate_and_handle()

        @keys.add("escape", "enter")
        @keys.add("c-j")
        def _(event: KeyPressEvent) -> None:
            self._buffer.newline(copy_margin=False)

        @keys.add("c-c")
        @keys.add("<sigint>")
        def _(event: KeyPressEvent) -> None:
            if self._buffer.text:
                self._buffer.reset()
            elif not self._actor.interrupt():
                self.exit()

        @keys.add("c-d")
        def _(event: KeyPressEvent) -> None:
            if self._buffer.text:
                self._buffer.delete()
            else:
                self.exit()

        @keys.add("c-z")
        def _(event: KeyPressEvent) -> None:
            self._app.suspend_to_background()

        return keys
