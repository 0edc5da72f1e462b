"""Which client a request came from, where proxies stand between: what limits per address count, and what logs show.

A header is believed only where the deployment says that its proxy writes it; anything else a client could make up.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import structlog
from multidict import CIMultiDictProxy

from server.ip_addresses import parse_address

log = structlog.get_logger(__name__)

WATCHED_REQUESTS: Final = 50
"""After so many sign-in requests from one address, this is taken to be a proxy's, and a warning is logged."""


class ReceivedRequest(Protocol):
    """What is needed of a request; `aiohttp.web.BaseRequest` is one."""

    @property
    def remote(self) -> str | None: ...

    @property
    def headers(self) -> CIMultiDictProxy[str]: ...


class ClientAddresses:
    """Reads a request's client address: from `header` where one is named, else through `trusted_proxies` entries of
    X-Forwarded-For, else from the connection."""

    def __init__(self, header: str | None = None, trusted_proxies: int = 0) -> None:
        self._header = header
        self._trusted_proxies = trusted_proxies
        self._only: str | None = None
        self._watched = 0

    def of(self, request: ReceivedRequest) -> str:
        """The address as text; the connection's where the header is missing or holds no address."""
        found: str | None = None
        if self._header is not None:
            found = _last_address(request.headers.getall(self._header, []))
        elif self._trusted_proxies:
            found = _behind_proxies(request.headers.getall("X-Forwarded-For", []), self._trusted_proxies)
        return found or parse_address(request.remote or "") or request.remote or "unknown"

    def watch(self, address: str) -> None:
        """Note the address of a sign-in request, and warn once if the first 50 were all the same."""
        if self._watched >= WATCHED_REQUESTS:
            return
        self._only = self._only or address
        if address != self._only:
            self._watched = WATCHED_REQUESTS
            return
        self._watched += 1
        if self._watched == WATCHED_REQUESTS:
            log.warning(
                "client_address.always_the_same",
                address=address,
                requests=self._watched,
                hint="If this is a proxy's address, all its clients share one limit of sign-in requests:"
                " set CLIENT_ADDRESS_HEADER or TRUSTED_PROXIES.",
            )


def _last_address(lines: Sequence[str]) -> str | None:
    """The last entry of a header: a proxy that adds a line or an entry, rather than replacing them, adds it there."""
    return parse_address(lines[-1].rpartition(",")[2]) if lines else None


def _behind_proxies(lines: Sequence[str], trusted_proxies: int) -> str | None:
    """Each proxy appends the address it saw to X-Forwarded-For, so that only as many entries, from the right, as there
    are trusted proxies can be believed: everything before them is the client's own claim."""
    entries = [entry for line in lines for entry in line.split(",")]
    return parse_address(entries[-min(trusted_proxies, len(entries))]) if entries else None
