"""Whether a dependency answers."""

from typing import Protocol


class Probe(Protocol):
    """The health check of one dependency, for `/ready`."""

    @property
    def name(self) -> str: ...

    async def ping(self) -> None:
        """Return if the service answers; raise the failure otherwise."""
        ...
