"""A user's plan, changed between messages, and the errors for a used-up budget and a model outside the plan."""

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from server.adapters.litellm.billing import LiteLLMBilling
from server.ports import Plan
from tests.stack.chat_client import ChatUser
from tests.stack.commands import chat_users, chat_users_fails
from tests.stack.provisioning_lab import Lab, open_lab
from tests.stack.running_stack import RunningStack


@pytest.fixture
async def lab(stack_env: dict[str, str]) -> AsyncIterator[Lab]:
    async with open_lab(stack_env) as lab:
        yield lab


async def test_a_budget_is_enforced_and_a_new_limit_applies_to_the_next_message(
    stack: RunningStack, ada: ChatUser
) -> None:
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


async def test_set_budget_changes_only_the_given_options(stack: RunningStack, lab: Lab, ada: ChatUser) -> None:
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


async def test_an_unknown_user_is_reported(stack: RunningStack) -> None:
    nobody = "00000000-0000-4000-8000-000000000000"
    assert await chat_users_fails(stack, "set-budget", nobody, "--unlimited") == "Error: This account does not exist.\n"
    assert await chat_users_fails(stack, "rotate-key", nobody) == "Error: This account does not exist.\n"


async def test_a_model_outside_the_plan_is_refused_at_once_with_the_reason(lab: Lab, ada: ChatUser) -> None:
    await ada.say("ECHO before")
    billing = LiteLLMBilling(lab.litellm)
    await billing.set_plan(ada.id, Plan(models=("mini",)))
    status, problem = await ada.send("ECHO hi")
    assert (status, problem["code"], problem["retryable"]) == (502, "model_error", False)
    assert problem["detail"] == "Your plan does not include the language model that your agent uses."
    await billing.set_plan(ada.id, Plan())
    await ada.say("ECHO again")
