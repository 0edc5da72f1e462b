"""How often one address may try the sign-in endpoints: Supabase counts all our users as one client, so we count first.

Memory is bounded: when too many addresses come, the least recent ones are forgotten.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from aiohttp import web

from server.client_address import ClientAddresses, network_of
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
        addresses: ClientAddresses | None = None,
        *,
        remembered: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = float(per_minute)
        self._per_second = per_minute / 60
        self._addresses = addresses or ClientAddresses()
        self._remembered = remembered
        self._clock = clock
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()

    def admit(self, request: web.Request) -> None:
        """Count one try of the request's sender. Raises PlatformError(rate_limited) with retry_after."""
        if self._burst:
            address = self._addresses.of(request)
            self._addresses.watch(address)
            self.count(address)

    def count(self, address: str) -> None:
        """Count one try of `address`. Raises PlatformError(rate_limited) with retry_after."""
        key, now = network_of(address), self._clock()
        allowance = self._allowances.pop(key, None) or _Allowance(self._burst, now)
        self._allowances[key] = allowance
        allowance.left = min(self._burst, allowance.left + (now - allowance.at) * self._per_second)
        allowance.at = now
        while len(self._allowances) > self._remembered:
            self._allowances.popitem(last=False)
        if allowance.left < 1:
            log.warning("auth.rate_limited", address=key)
            raise PlatformError(ErrorCode.RATE_LIMITED, retry_after=(1 - allowance.left) / self._per_second)
        allowance.left -= 1
