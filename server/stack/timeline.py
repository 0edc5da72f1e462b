"""How long the start of a service took: its own steps, and the service that it waited for. Pure bookkeeping."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

LONG_SECONDS = 0.5
"""Shorter steps are not printed."""


class Step(StrEnum):
    """The steps of a start, in their order."""

    INSTALL = "install"
    PREPARE = "prepare"
    START = "start"


class Timeline:
    """The start of the service `name`. `waited_for` is the last dependency that was not ready when it was installed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waited_for: Timeline | None = None
        self.ended = 0.0
        self._seconds: dict[Step, float] = {}

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """Measure a step, or another attempt of it."""
        began = time.monotonic()
        yield
        self.ended = time.monotonic()
        self._seconds[step] = self.seconds(step) + self.ended - began

    def seconds(self, step: Step) -> float:
        """How long the step took, all attempts together; 0 if it did not happen."""
        return self._seconds.get(step, 0.0)

    def critical_path(self) -> list[str]:
        """The long steps that it had to wait for, in order, such as `["letta: start 9 s", "server: start 1 s"]`."""
        before = self.waited_for.critical_path() if self.waited_for else []
        counted = [step for step in Step if not (self.waited_for and step is Step.INSTALL)]
        long = [f"{step} {self.seconds(step):.0f} s" for step in counted if self.seconds(step) >= LONG_SECONDS]
        return before + ([f"{self.name}: {', '.join(long)}"] if long else [])
