"""The client's address of a request, also behind proxies. Limits per address and log lines use it.

A header is trusted only if the deployment says that its proxy writes it; a client could forge any other.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import structlog
from multidict import CIMultiDictProxy

from server.ip_addresses import parse_address

log = structlog.get_logger(__name__)

WATCHED_REQUESTS: Final = 50
"""If so many first sign-in requests come from one address, it is probably a proxy's, and a warning is logged."""


class ReceivedRequest(Protocol):
    """The used part of a request; `aiohttp.web.BaseRequest` is one."""

    @property
    def remote(self) -> str | None: ...

    @property
    def headers(self) -> CIMultiDictProxy[str]: ...


class ClientAddresses:
    """Reads the client's address from `header` if one is named, else from X-Forwarded-For behind `trusted_proxies`
    proxies, else from the connection."""

    def __init__(self, header: str | None = None, trusted_proxies: int = 0) -> None:
        self._header = header
        self._trusted_proxies = trusted_proxies
        self._only: str | None = None
        self._watched = 0

    def of(self, request: ReceivedRequest) -> str:
        """The address as text; the connection's if the header is missing or has no address."""
        found: str | None = None
        if self._header is not None:
            found = _last_address(request.headers.getall(self._header, []))
        elif self._trusted_proxies:
            found = _behind_proxies(request.headers.getall("X-Forwarded-For", []), self._trusted_proxies)
        return found or parse_address(request.remote or "") or request.remote or "unknown"

    def watch(self, address: str) -> None:
        """Record the address of a sign-in request, and warn once if the first WATCHED_REQUESTS were all the same."""
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
    """The last entry of a header: a proxy that does not replace the header appends its line or entry."""
    return parse_address(lines[-1].rpartition(",")[2]) if lines else None


def _behind_proxies(lines: Sequence[str], trusted_proxies: int) -> str | None:
    """The entry of the outermost trusted proxy. Each proxy appends its peer's address to X-Forwarded-For, so only the
    last `trusted_proxies` entries can be trusted; the client may have forged those before."""
    entries = [entry for line in lines for entry in line.split(",")]
    return parse_address(entries[-min(trusted_proxies, len(entries))]) if entries else None
