"""Whether dependencies answer, and what is wrong with them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class Probe(Protocol):
    """The health check of one dependency, for `/ready`."""

    @property
    def name(self) -> str: ...

    async def ping(self) -> None:
        """Return if the service answers; raise the failure otherwise."""
        ...


Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `message` describes the state or the problem; `remedy` how to fix it, empty for ok."""

    level: Level
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A finding with the service and name of its check."""

    service: str
    name: str
    finding: Finding


Diagnose = Callable[[], Awaitable[Sequence[Diagnosis]]]
"""Examines the settings and all services, as `chat doctor` does. What cannot be checked is a finding."""
