"""Which client a request came from, where proxies stand between: what limits per address count, and what logs show.

A header is believed only where the deployment says that its proxy writes it; anything else a client could make up.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import structlog
from multidict import CIMultiDictProxy

log = structlog.get_logger(__name__)

RAILWAY_HEADER: Final = "X-Real-IP"
"""In which Railway's edge puts the client's address. Its X-Forwarded-For ends in an address of the edge, which differs
from request to request."""

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


def header_in_use(named: str | None, environment: Mapping[str, str]) -> str | None:
    """The header that holds the client's address: the one `named`, else Railway's own where its variables are set."""
    if named:
        return named
    return RAILWAY_HEADER if any(name.upper().startswith("RAILWAY_") for name in environment) else None


def parse_address(text: str) -> str | None:
    """The IP address in `text`, which may carry a port (`192.0.2.1:443`, `[2001:db8::1]:443`), brackets, quotes or an
    IPv6 zone. IPv4 inside of IPv6, as a socket for both shows it, is IPv4. None where there is no address."""
    text = text.strip().strip('"')
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not _is_port(f":{port}"):
            return None
    else:
        host = text
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def network_of(address: str) -> str:
    """What is counted as one client: an IPv4 address, or a /64 of IPv6, which is what one customer gets."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if (mapped := parsed.ipv4_mapped) is not None:
            return str(mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def _is_port(text: str) -> bool:
    number = text.removeprefix(":")
    return text.startswith(":") and number.isascii() and number.isdigit() and len(number) <= 5


def _last_address(lines: Sequence[str]) -> str | None:
    """The last entry of a header: a proxy that adds a line or an entry, rather than replacing them, adds it there."""
    return parse_address(lines[-1].rpartition(",")[2]) if lines else None


def _behind_proxies(lines: Sequence[str], trusted_proxies: int) -> str | None:
    """Each proxy appends the address it saw to X-Forwarded-For, so that only as many entries, from the right, as there
    are trusted proxies can be believed: everything before them is the client's own claim."""
    entries = [entry for line in lines for entry in line.split(",")]
    return parse_address(entries[-min(trusted_proxies, len(entries))]) if entries else None
