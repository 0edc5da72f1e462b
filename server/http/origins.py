"""Which web pages may use this server from a browser: one rule for CORS and for WebSocket handshakes."""

from collections.abc import Iterable
from urllib.parse import urlsplit

import structlog

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Origins:
    """The rule of ALLOWED_ORIGINS. `*` allows every origin; `localhost_allowed` allows this machine's, on any port."""

    def __init__(self, allowed: Iterable[str], *, localhost_allowed: bool) -> None:
        self._allowed = frozenset(origin.lower() for origin in allowed)
        self._localhost_allowed = localhost_allowed

    def allows(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may send a request with this `host` (the Host header)."""
        if not origin.isascii():
            return False
        origin = origin.lower()
        if "*" in self._allowed or origin in self._allowed:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname
        except ValueError:
            return False
        if parts.scheme not in ("http", "https"):
            return False
        return parts.netloc == host.lower() or (self._localhost_allowed and name in _LOOPBACK)

    def refusal(self, origin: str) -> PlatformError:
        """The error for an origin that is not allowed. Logs it, since ALLOWED_ORIGINS may lack it by mistake."""
        log.warning(
            "origin.refused",
            origin=origin[:200],
            hint="Pages of this origin may connect once it is in ALLOWED_ORIGINS, written exactly so.",
        )
        return PlatformError(ErrorCode.ORIGIN_NOT_ALLOWED)
