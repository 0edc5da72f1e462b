"""LiteLLM as `/ready` sees it: alive, and connected to its database."""

from server.litellm_adapter.client import LiteLLMClient
from server.resilience import ServiceError

DEADLINE_SECONDS = 2.0


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
