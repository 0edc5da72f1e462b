"""The issuers of the project's tokens: its own Auth, under any of its names.

With a custom hostname, the tokens' issuer differs from SUPABASE_URL (supabase/auth#2486). Discovered only for tokens
that a key of the project has signed, so that forged tokens cause no requests.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import httpx
import structlog

from server.adapters.supabase.client import SupabaseClient

log = structlog.get_logger(__name__)

DISCOVERY: Final = "/auth/v1/.well-known/openid-configuration"
REFETCH_SECONDS: Final = 30.0
FETCH_SECONDS: Final = 3.0


def own_issuer(url: str) -> str:
    """The issuer of a project without a custom hostname."""
    return f"{url.rstrip('/')}/auth/v1"


def discovered_issuer(response: httpx.Response) -> str | None:
    """The issuer in the project's discovery document; None if there is no such document."""
    if not response.is_success:
        return None
    try:
        document: Any = response.json()
    except ValueError:
        return None
    issuer = document.get("issuer") if isinstance(document, dict) else None
    return issuer if isinstance(issuer, str) and issuer else None


class Issuers:
    """`configured` is SUPABASE_JWT_ISSUER, for projects whose Auth has no discovery document."""

    def __init__(
        self, client: SupabaseClient, configured: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._known = {own_issuer(client.url)} | ({configured} if configured else set())
        self._clock = clock
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")

    async def includes(self, issuer: str) -> bool:
        """Whether tokens of this issuer are the project's. Raises PlatformError(supabase_unavailable)."""
        if issuer not in self._known:
            async with self._lock:
                if issuer not in self._known and self._clock() - self._asked_at >= REFETCH_SECONDS:
                    await self._discover(issuer)
        return issuer in self._known

    async def _discover(self, issuer: str) -> None:
        response = await self._client.fetch(DISCOVERY, deadline=FETCH_SECONDS)
        self._asked_at = self._clock()
        named = discovered_issuer(response)
        if named is not None and named not in self._known:
            self._known.add(named)
            log.info("issuer.discovered", issuer=named)
        if issuer not in self._known:
            self._client.faults.report(
                "issuer.unknown",
                issuer[:200],
                known=sorted(self._known),
                hint="if these are this project's own tokens, set SUPABASE_JWT_ISSUER",
            )
