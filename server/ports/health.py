"""Whether a dependency answers."""

from typing import Protocol


class Probe(Protocol):
    """One dependency as `/ready` sees it."""

    @property
    def name(self) -> str: ...

    async def ping(self) -> None:
        """Return when the service answers; raise whatever went wrong otherwise."""
        ...
