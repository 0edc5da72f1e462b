"""Which web pages may use this server from a browser: one rule for CORS and for WebSocket handshakes."""

from collections.abc import Iterable
from urllib.parse import urlsplit

import structlog

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Origins:
    """The origins of ALLOWED_ORIGINS (`*`: every one) and that of `own_url`, the server's own pages. The Host header is
    never compared: the owner of a domain can point it here. `localhost_allowed`: this machine's, on any port."""

    def __init__(self, allowed: Iterable[str], *, own_url: str | None = None, localhost_allowed: bool) -> None:
        own = () if own_url is None else (_origin_of(own_url),)
        self._allowed = frozenset(origin.lower() for origin in (*allowed, *own))
        self._localhost_allowed = localhost_allowed

    def allows(self, origin: str) -> bool:
        """Whether a page of `origin` may use this server."""
        if not origin.isascii():
            return False
        if "*" in self._allowed or origin.lower() in self._allowed:
            return True
        if not self._localhost_allowed:
            return False
        try:
            parts = urlsplit(origin)
            return parts.scheme in ("http", "https") and parts.hostname in _LOOPBACK
        except ValueError:
            return False

    def refusal(self, origin: str) -> PlatformError:
        """The error for an origin that is not allowed. Logs it, since ALLOWED_ORIGINS may lack it by mistake."""
        log.warning(
            "origin.refused",
            origin=origin[:200],
            hint="Pages of this origin may connect once it is in ALLOWED_ORIGINS, written exactly so.",
        )
        return PlatformError(ErrorCode.ORIGIN_NOT_ALLOWED)


def _origin_of(url: str) -> str:
    """The origin of a URL as browsers send it: without a path and the standard port."""
    parts = urlsplit(url)
    standard = {"http": 80, "https": 443}.get(parts.scheme)
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{name}" if parts.port in (None, standard) else f"{parts.scheme}://{name}:{parts.port}"
