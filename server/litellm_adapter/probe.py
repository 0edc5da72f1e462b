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
        await self._client.ask_once("/health/liveliness", deadline=DEADLINE_SECONDS, authorized=False)
        answer = await self._client.ask_once("/health/readiness", deadline=DEADLINE_SECONDS, authorized=False)
        if not answer.ok or not has_database(answer.body):
            raise ServiceError("LiteLLM runs without its database")


def has_database(readiness: object) -> bool:
    """Whether LiteLLM's readiness says that it has a database (it keeps saying so shortly after losing it)."""
    return isinstance(readiness, dict) and readiness.get("db") == "connected"
