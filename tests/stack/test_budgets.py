"""What a user may use, changed while the user talks; and what LiteLLM refuses, told apart by its own words."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from server.letta_adapter.errors import model_error
from server.litellm_adapter.billing import LiteLLMBilling
from server.ports import Plan
from server.protocol.codes import ErrorCode
from server.protocol.shapes import TurnError
from tests.stack.chat_client import ChatUser
from tests.stack.commands import chat_users, chat_users_fails
from tests.stack.provisioning_lab import Lab, open_lab
from tests.stack.running_stack import RunningStack


@pytest.fixture
async def lab(stack_env: dict[str, str]) -> AsyncIterator[Lab]:
    async with open_lab(stack_env) as lab:
        yield lab


@dataclass(frozen=True, slots=True)
class Talker:
    """A user whose key asks LiteLLM for the model without Letta in between, which would wait a limit out."""

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
        """What a turn would fail with: the answer, quoted as the client that Letta uses quotes it.

        Limits are counted by whole minutes: the first call of a new one may still pass."""
        for _ in range(3):
            status, answer = await self.ask()
            if status >= 400:
                break
        assert status >= 400, answer
        return model_error("internal_error", f"X: Y: Error code: {status} - {answer} [BYOK]")


@pytest.fixture
async def talker(lab: Lab, http: aiohttp.ClientSession, ada: ChatUser) -> Talker:
    await ada.say("ECHO before")
    account = (await lab.holdings(ada.id)).account
    assert account.encrypted_key is not None
    key = lab.keys.open(ada.id, account.encrypted_key).get_secret_value()
    url = str(lab.settings.litellm_base_url).rstrip("/")
    return Talker(http, LiteLLMBilling(lab.litellm), ada.id, url, key)


async def test_a_budget_holds_and_is_lifted_from_the_next_message_on(stack: RunningStack, ada: ChatUser) -> None:
    await ada.say("ECHO within")
    lines = await chat_users(stack, "set-budget", ada.id, "--budget", "0.000001", "--period", "30d")
    assert lines[0].split() == ["limit", "0.000001", "USD"]
    assert lines[2].split() == ["period", "30d"]
    assert lines[3].startswith("resets at ")
    async with ada.connect() as device:
        ack = await device.say("ECHO beyond")
        end = await device.end_of(ack["turn_id"])
        assert (end["turn"]["status"], end["turn"]["error"]["code"]) == ("unsent", "budget_exceeded")
        assert (await chat_users(stack, "set-budget", ada.id, "--budget", "50"))[0].split() == ["limit", "50", "USD"]
        await device.send(type="retry", id="again", turn_id=ack["turn_id"])
        done = await device.wait_for(lambda f: f["type"] == "turn.completed" and f["turn_id"] == ack["turn_id"])
        assert done["turn"]["message"]["content"] == "beyond"
        await chat_users(stack, "set-budget", ada.id, "--budget", "0.000001")
        again = await device.say("ECHO beyond again")
        assert (await device.end_of(again["turn_id"]))["turn"]["status"] == "unsent"
        await chat_users(stack, "set-budget", ada.id, "--unlimited")
    await ada.say("ECHO without a limit")


async def test_only_what_is_given_changes(stack: RunningStack, lab: Lab, ada: ChatUser) -> None:
    await ada.say("ECHO before")
    first = await chat_users(
        stack, "set-budget", ada.id, "--budget", "12.345678", "--period", "7d", "--tokens-per-minute", "90000",
        "--models", "gpt-4,mini",
    )  # fmt: skip
    second = await chat_users(stack, "set-budget", ada.id, "--requests-per-minute", "20")
    spent = first[1], second[1]  # comes seconds late
    assert [line for line in second[:5] if line not in spent] == [line for line in first[:5] if line not in spent]
    billing = LiteLLMBilling(lab.litellm)
    assert await billing.plan(ada.id) == Plan(Decimal("12.345678"), "7d", 90_000, 20, ("gpt-4", "mini"))
    await chat_users(
        stack, "set-budget", ada.id, "--unlimited", "--period", "none", "--tokens-per-minute", "none",
        "--requests-per-minute", "none", "--models", "all",
    )  # fmt: skip
    assert await billing.plan(ada.id) == Plan()


async def test_a_user_nobody_knows_is_said_to_be_unknown(stack: RunningStack) -> None:
    nobody = "00000000-0000-4000-8000-000000000000"
    assert await chat_users_fails(stack, "set-budget", nobody, "--unlimited") == "Error: This account does not exist.\n"
    assert await chat_users_fails(stack, "rotate-key", nobody) == "Error: This account does not exist.\n"


async def test_a_limit_holds_at_once_and_says_when_to_come_back(talker: Talker) -> None:
    for plan in (Plan(tokens_per_minute=1), Plan(requests_per_minute=1)):
        await talker.billing.set_plan(talker.user_id, plan)
        if plan.requests_per_minute:
            await talker.ask()
        limited = await talker.refusal()
        assert (limited.code, limited.retryable) == (ErrorCode.RATE_LIMITED, True)
        assert limited.retry_after is not None
        assert 1 <= limited.retry_after <= 60
        await talker.billing.set_plan(talker.user_id, Plan())
        assert (await talker.ask())[0] == 200


async def test_a_budget_is_never_taken_for_a_limit(talker: Talker) -> None:
    await talker.billing.set_plan(talker.user_id, Plan(Decimal("0.000001"), tokens_per_minute=1))
    exceeded = await talker.refusal()
    assert (exceeded.code, exceeded.retry_after) == (ErrorCode.BUDGET_EXCEEDED, None)
    await talker.billing.set_plan(talker.user_id, Plan(tokens_per_minute=1))
    assert (await talker.refusal()).code is ErrorCode.RATE_LIMITED


async def test_a_model_outside_the_plan_is_refused_at_once_and_said_plainly(talker: Talker, ada: ChatUser) -> None:
    await talker.billing.set_plan(talker.user_id, Plan(models=("mini",)))
    status, problem = await ada.call("POST", "/chat/message", {"content": "ECHO hi", "stream": False})
    assert (status, problem["code"], problem["retryable"]) == (502, "model_error", False)
    assert problem["detail"] == "Your plan does not include the language model that your agent uses."
    await talker.billing.set_plan(talker.user_id, Plan())
    await ada.say("ECHO again")
