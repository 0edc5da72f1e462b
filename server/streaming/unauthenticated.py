"""The limits of unauthenticated sockets: on this instance, and from one address."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits

log = structlog.get_logger(__name__)

_RETRY_AFTER_SECONDS = 2.0


class UnauthenticatedSockets:
    """Counts unauthenticated sockets. The memory that each can use is limited by the size of the first frame."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_network: Counter[str] = Counter()
        self.count = 0

    @contextmanager
    def counted(self, network: str) -> Iterator[None]:
        """Count one socket from `network` until exit. Raises PlatformError(rate_limited | overloaded)."""
        if self._by_network[network] >= self._limits.unauthenticated_sockets_per_address:
            log.warning("websocket.too_many_unauthenticated", address=network)
            message = "Too many sockets from your address are not signed in."
            raise PlatformError(ErrorCode.RATE_LIMITED, message, retry_after=_RETRY_AFTER_SECONDS)
        if self.count >= self._limits.unauthenticated_sockets:
            log.warning("websocket.too_many_unauthenticated", address=None)
            message = "Too many sockets are not signed in."
            raise PlatformError(ErrorCode.OVERLOADED, message, retry_after=_RETRY_AFTER_SECONDS)
        self._by_network[network] += 1
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]
