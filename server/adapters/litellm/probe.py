"""LiteLLM as `/ready` sees it: alive, and connected to its database."""

import re
from typing import Final

from server.adapters.litellm.client import LiteLLMClient
from server.resilience import ServiceError

DEADLINE_SECONDS: Final = 2.0
OLDEST_RELEASE: Final = (1, 106)
"""What this platform needs of LiteLLM was measured on 1.106.2: a spend log in pages, how a key stands, typed errors."""
_RELEASE: Final = re.compile(r"(\d{1,6})\.(\d{1,6})\b")


class LiteLLMProbe:
    """Implements `server.ports.Probe`."""

    name = "litellm"

    def __init__(self, client: LiteLLMClient) -> None:
        self._client = client

    async def ping(self) -> None:
        """Raises ServiceError or TimeoutError. Asks without a key: health must not depend on one."""
        await self.alive()
        if not await self.has_database():
            raise ServiceError("LiteLLM runs without its database")

    async def alive(self) -> None:
        """Raises ServiceError or TimeoutError where no LiteLLM answers."""
        answer = await self._client.ask_once("/health/liveliness", deadline=DEADLINE_SECONDS, authorized=False)
        if not answer.ok:
            raise ServiceError(f"what answers there ({answer.status}) is not LiteLLM")

    async def has_database(self) -> bool:
        """What LiteLLM says of its database (it keeps saying yes shortly after losing it). Raises as `alive`."""
        answer = await self._client.ask_once("/health/readiness", deadline=DEADLINE_SECONDS, authorized=False)
        return answer.ok and isinstance(answer.body, dict) and answer.body.get("db") == "connected"

    async def release(self) -> str | None:
        """Which release it is; None where it does not say so, as older ones. Raises as `alive`."""
        answer = await self._client.ask_once("/health/readiness/details", deadline=DEADLINE_SECONDS)
        found = answer.body.get("litellm_version") if answer.ok and isinstance(answer.body, dict) else None
        return None if found is None else str(found)


def is_supported(release: str | None) -> bool:
    """Whether it is not older than the oldest that this platform talks to."""
    found = _RELEASE.match(release or "")
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST_RELEASE
