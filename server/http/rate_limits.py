"""Rate limits of requests: per client address where users sign in, before Supabase is called; per user elsewhere."""

import structlog
from aiohttp import web

from server.http.client_address import ClientAddresses
from server.ip_addresses import network_of
from server.ports import Principal
from server.protocol.errors import PlatformError
from server.resilience.rate_limiter import RateLimiter

log = structlog.get_logger(__name__)


class AddressLimiter:
    """The limit `auth_requests` for the networks of clients."""

    def __init__(self, limiter: RateLimiter, addresses: ClientAddresses | None = None) -> None:
        self._limiter = limiter
        self._addresses = addresses or ClientAddresses()

    async def admit(self, request: web.Request) -> None:
        """Count one attempt of the request's client. Raises PlatformError(rate_limited) with retry_after."""
        address = self._addresses.of(request)
        self._addresses.watch(address)
        await self.count(address)

    async def count(self, address: str) -> None:
        """Count one attempt of `address`. Raises PlatformError(rate_limited) with retry_after."""
        network = network_of(address)
        try:
            await self._limiter.take("auth_requests", network)
        except PlatformError:
            log.warning("auth.rate_limited", address=network)
            raise


async def count_request(limiter: RateLimiter, principal: Principal) -> None:
    """Count a request or socket of the user; one with an API key was counted with the key. Raises
    PlatformError(rate_limited) with retry_after."""
    if principal.key_id is None:
        await limiter.take("requests", principal.user_id)
