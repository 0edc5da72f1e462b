"""A link is one connection to the session. The kinds of links (WebSocket, event stream) look the same to what is above
them: frames come in, commands go out, and it ends once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ai_chat_client.errors import ChatError
from ai_chat_client.wire import Command, Frame

NO_CODE = 1006


@dataclass(frozen=True, slots=True)
class LinkRequest:
    api: str
    """The address up to and including `/api/v1`."""
    token: str
    cursor: str | None


@dataclass(frozen=True, slots=True)
class LinkHandlers:
    frame: Callable[[Frame], None]
    alive: Callable[[], None]
    """Something arrived that is no frame: the other side is alive."""


@dataclass(frozen=True, slots=True)
class LinkEnd:
    code: int
    """A close code of the WebSocket protocol or of docs/errors.md; NO_CODE without one."""
    error: ChatError | None = None
    """What the server said."""


class Link(Protocol):
    async def run(self) -> LinkEnd:
        """Connect, and pass on frames to the end. What a handler raises ends the link, as cancelling does."""
        ...

    def send(self, command: Command) -> None: ...

    def renew(self, token: str) -> None:
        """Use a fresh token of the same user."""
        ...

    def probe(self) -> None:
        """Make the other side answer something, if that is possible."""
        ...


OpenLink = Callable[[LinkRequest, LinkHandlers], Link]
