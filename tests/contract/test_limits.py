"""Classifying LiteLLM's refusals by their text: a budget, and limits per minute.

Here, where a run begins: on a proxy that had served some hundred users, limits per minute did not always hold.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from server.adapters.letta.errors import model_error
from server.adapters.litellm.billing import LiteLLMBilling
from server.ports import Plan
from server.protocol.codes import ErrorCode
from server.protocol.shapes import TurnError
from tests.stack.chat_client import register
from tests.stack.provisioning_lab import open_lab
from tests.stack.running_stack import RunningStack


@dataclass(frozen=True, slots=True)
class Talker:
    """A user whose key calls the model at LiteLLM directly, since Letta would retry until the limit ends."""

    http: aiohttp.ClientSession
    billing: LiteLLMBilling
    user_id: str
    url: str
    key: str

    async def ask(self) -> tuple[int, Any]:
        body = {"model": "gpt-4", "messages": [{"role": "user", "content": "ECHO hi"}]}
        headers = {"Authorization": f"Bearer {self.key}"}
        async with self.http.post(f"{self.url}/v1/chat/completions", json=body, headers=headers) as response:
            return response.status, await response.json()

    async def refusal(self) -> TurnError:
        """The error of a turn: the answer, quoted like by the client that Letta uses.

        Limits are counted by whole minutes: the first call of a new one may still pass."""
        for _ in range(10):
            status, answer = await self.ask()
            if status >= 400:
                break
        assert status >= 400, answer
        return model_error("internal_error", f"X: Y: Error code: {status} - {answer} [BYOK]")


@pytest.fixture
async def talker(stack: RunningStack, http: aiohttp.ClientSession) -> AsyncIterator[Talker]:
    ada = await register(http, stack.url)
    await ada.say("ECHO before")
    async with open_lab(stack.env) as lab:
        account = (await lab.holdings(ada.id)).account
        assert account.encrypted_key is not None
        key = lab.keys.open(ada.id, account.encrypted_key).get_secret_value()
        url = str(lab.settings.litellm_base_url).rstrip("/")
        yield Talker(http, LiteLLMBilling(lab.litellm), ada.id, url, key)


async def test_a_limit_applies_at_once_and_has_a_retry_after(talker: Talker) -> None:
    for plan in (Plan(tokens_per_minute=1), Plan(requests_per_minute=1)):
        await talker.billing.set_plan(talker.user_id, plan)
        limited = await talker.refusal()
        assert (limited.code, limited.retryable) == (ErrorCode.RATE_LIMITED, True)
        assert limited.retry_after is not None
        assert 1 <= limited.retry_after <= 60
        await talker.billing.set_plan(talker.user_id, Plan())
        assert (await talker.ask())[0] == 200


async def test_a_budget_error_is_not_a_rate_limit(talker: Talker) -> None:
    await talker.billing.set_plan(talker.user_id, Plan(Decimal("0.000001"), tokens_per_minute=1))
    exceeded = await talker.refusal()
    assert (exceeded.code, exceeded.retry_after) == (ErrorCode.BUDGET_EXCEEDED, None)
    await talker.billing.set_plan(talker.user_id, Plan(tokens_per_minute=1))
    assert (await talker.refusal()).code is ErrorCode.RATE_LIMITED
