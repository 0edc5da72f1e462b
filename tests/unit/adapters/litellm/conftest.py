"""Gives each test a scripted LiteLLM of its own."""

from collections.abc import AsyncIterator

import pytest

from server.adapters.litellm.billing import LiteLLMBilling
from server.adapters.litellm.client import LiteLLMClient
from tests.unit.adapters.litellm.scripted import ScriptedLiteLLM, connected


@pytest.fixture
def service() -> ScriptedLiteLLM:
    return ScriptedLiteLLM()


@pytest.fixture
async def client(service: ScriptedLiteLLM) -> AsyncIterator[LiteLLMClient]:
    async with connected(service) as client:
        yield client


@pytest.fixture
def billing(client: LiteLLMClient) -> LiteLLMBilling:
    return LiteLLMBilling(client)
