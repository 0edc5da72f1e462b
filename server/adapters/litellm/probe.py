"""The probe of LiteLLM for `/ready`: whether it answers and is connected to its database."""

import re
from typing import Final

from server.adapters.litellm.client import LiteLLMClient
from server.resilience import ServiceError

DEADLINE_SECONDS: Final = 2.0
OLDEST_RELEASE: Final = (1, 106)
"""The oldest supported release. Measured on 1.106.2: a spend log in pages, the state of a key, typed errors."""
_RELEASE: Final = re.compile(r"(\d{1,6})\.(\d{1,6})\b")


class LiteLLMProbe:
    """Implements `server.ports.Probe`."""

    name = "litellm"

    def __init__(self, client: LiteLLMClient) -> None:
        self._client = client

    async def ping(self) -> None:
        """Raises ServiceError or TimeoutError. Sends no key, since health must not depend on one."""
        await self.alive()
        if not await self.has_database():
            raise ServiceError("LiteLLM runs without its database")

    async def alive(self) -> None:
        """Raises ServiceError or TimeoutError if no LiteLLM answers."""
        answer = await self._client.ask_once("/health/liveliness", deadline=DEADLINE_SECONDS, authorized=False)
        if not answer.ok:
            raise ServiceError(f"what answers there ({answer.status}) is not LiteLLM")

    async def has_database(self) -> bool:
        """Whether LiteLLM reports a database (for a short time also after losing it). Raises as `alive`."""
        answer = await self._client.ask_once("/health/readiness", deadline=DEADLINE_SECONDS, authorized=False)
        return answer.ok and isinstance(answer.body, dict) and answer.body.get("db") == "connected"

    async def release(self) -> str | None:
        """LiteLLM's release; None if it does not report one, as older releases. Raises as `alive`."""
        answer = await self._client.ask_once("/health/readiness/details", deadline=DEADLINE_SECONDS)
        found = answer.body.get("litellm_version") if answer.ok and isinstance(answer.body, dict) else None
        return None if found is None else str(found)


def is_supported(release: str | None) -> bool:
    """Whether the release is `OLDEST_RELEASE` or newer."""
    found = _RELEASE.match(release or "")
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST_RELEASE
