"""How often one address may try the sign-in endpoints: Supabase counts all our users as one client, so we count first.

Memory is bounded: when too many addresses come, the least recent ones are forgotten.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from aiohttp import web

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Allowance:
    left: float
    at: float


class AddressLimiter:
    """A token bucket per client address: `per_minute` tries, all of which may come at once. 0 turns the limit off."""

    def __init__(
        self,
        per_minute: int,
        trusted_proxies: int,
        *,
        addresses: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = float(per_minute)
        self._per_second = per_minute / 60
        self._trusted_proxies = trusted_proxies
        self._addresses = addresses
        self._clock = clock
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()

    def admit(self, request: web.Request) -> None:
        """Count one try of the request's sender. Raises PlatformError(rate_limited) with retry_after."""
        if self._burst:
            forwarded = request.headers.getall("X-Forwarded-For", [])
            self.count(client_address(request.remote, forwarded, self._trusted_proxies))

    def count(self, address: str) -> None:
        """Count one try of `address`. Raises PlatformError(rate_limited) with retry_after."""
        key, now = _network(address), self._clock()
        allowance = self._allowances.pop(key, None) or _Allowance(self._burst, now)
        self._allowances[key] = allowance
        allowance.left = min(self._burst, allowance.left + (now - allowance.at) * self._per_second)
        allowance.at = now
        while len(self._allowances) > self._addresses:
            self._allowances.popitem(last=False)
        if allowance.left < 1:
            log.warning("auth.rate_limited", address=key)
            raise PlatformError(ErrorCode.RATE_LIMITED, retry_after=(1 - allowance.left) / self._per_second)
        allowance.left -= 1


def client_address(peer: str | None, forwarded: Sequence[str], trusted_proxies: int) -> str:
    """Who sent a request that came from `peer` through `trusted_proxies` proxies of ours.

    Each proxy appends the address it saw to X-Forwarded-For; only as many entries, from the right, as there are
    trusted proxies can be believed: everything before them is the client's own claim.
    """
    entries = [entry.strip() for line in forwarded for entry in line.split(",")]
    if trusted_proxies and entries:
        candidate = entries[-min(trusted_proxies, len(entries))]
        try:
            return str(ipaddress.ip_address(candidate))
        except ValueError:
            pass
    return peer or "unknown"


def _network(address: str) -> str:
    """One IPv6 customer has a /64: count it as one address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if (mapped := parsed.ipv4_mapped) is not None:
            return str(mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address
