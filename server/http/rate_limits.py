"""Rate limit of the sign-in endpoints per client address: it refuses an attacker before Supabase is called."""

import time
from collections.abc import Callable

import structlog
from aiohttp import web

from server.http.client_address import ClientAddresses
from server.ip_addresses import network_of
from server.protocol.errors import PlatformError
from server.resilience.token_buckets import Buckets

log = structlog.get_logger(__name__)


class AddressLimiter:
    """Allows `per_minute` attempts per client address, also in one burst. 0 turns the limit off."""

    def __init__(
        self,
        per_minute: int,
        addresses: ClientAddresses | None = None,
        *,
        held: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._buckets = Buckets(per_minute, held=held, clock=clock)
        self._addresses = addresses or ClientAddresses()

    def admit(self, request: web.Request) -> None:
        """Count one attempt of the request's client. Raises PlatformError(rate_limited) with retry_after."""
        address = self._addresses.of(request)
        self._addresses.watch(address)
        self.count(address)

    def count(self, address: str) -> None:
        """Count one attempt of `address`. Raises PlatformError(rate_limited) with retry_after."""
        network = network_of(address)
        try:
            self._buckets.take(network)
        except PlatformError:
            log.warning("auth.rate_limited", address=network)
            raise
