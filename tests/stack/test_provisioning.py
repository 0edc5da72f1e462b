"""The saga on the real Supabase, LiteLLM and Letta: exactly one of each object, whichever process dies in between."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from pydantic import SecretStr

from server.adapters.litellm.client import LiteLLMClient
from server.keyring import KeyRing
from server.ports import Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.provisioning.steps import AGENT_REPLACED
from server.resilience import Breaker, Guard
from tests.stack.chat_client import TIMEOUT
from tests.stack.commands import chat_users
from tests.stack.provisioning_lab import Executioner, Killed, Lab, open_lab
from tests.stack.running_stack import RunningStack
from tests.stack.supabase_users import sign_up

NewUser = Callable[[], Awaitable[Principal]]

STEPS = ("ensure_customer", "ensure_key", "create_organization", "ensure_member", "ensure_tools", "ensure_provider",
         "ensure_agent", "ensure_conversation")  # fmt: skip
"""The calls of a registration that change LiteLLM or Letta."""


@pytest.fixture
async def lab(stack_env: dict[str, str]) -> AsyncIterator[Lab]:
    async with open_lab(stack_env) as lab:
        yield lab


@pytest.fixture
async def somebody(lab: Lab) -> Principal:
    """A user who signed up at Supabase and is unknown to the other services."""
    return await sign_up(lab.supabase)


async def test_a_registration_makes_one_of_everything(lab: Lab, somebody: Principal) -> None:
    started = time.monotonic()
    handle = await lab.process().ready(somebody.user_id, somebody.email, timeout=TIMEOUT)
    print(f"\nsaga: {time.monotonic() - started:.2f} s")  # noqa: T201 - a figure to read, not a judgement
    await lab.assert_exactly_one_of_each(somebody.user_id)
    assert (await lab.holdings(somebody.user_id)).account.handle == handle


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_before_or_after_any_effect_is_repaired(
    lab: Lab, somebody: Principal, step: str, when: str
) -> None:
    executioner = Executioner(_call_number(step), after=when == "after")
    dying = lab.process(executioner)
    with pytest.raises(Killed):
        await dying.ready(somebody.user_id, somebody.email, timeout=TIMEOUT)
    await dying.aclose()
    assert (executioner.calls[-1] == step) == (when == "after")
    await lab.process().ready(somebody.user_id, timeout=TIMEOUT)
    await lab.assert_exactly_one_of_each(somebody.user_id)


def _call_number(step: str) -> int:
    """The number of the call of a registration that reaches this step: ensure, get, claim and the first intent, the
    result of the key's value, which needs no service, then two for each step."""
    return 5 + 2 * STEPS.index(step) + 1


async def test_two_instances_at_once_make_one_of_everything(lab: Lab, somebody: Principal) -> None:
    instances = [lab.process(owner=f"instance-{number}") for number in range(3)]
    handles = await asyncio.gather(*(one.ready(somebody.user_id, somebody.email, timeout=TIMEOUT) for one in instances))
    assert len(set(handles)) == 1
    await lab.assert_exactly_one_of_each(somebody.user_id)


async def test_with_litellm_down_the_account_waits_and_is_completed_later(lab: Lab, somebody: Principal) -> None:
    async with aiohttp.ClientSession() as http:
        guard = Guard(Breaker("litellm", ErrorCode.LITELLM_UNAVAILABLE))
        nowhere = LiteLLMClient("http://127.0.0.1:9", lab.settings.litellm_master_key, http, guard)
        cut_off = lab.process(litellm=nowhere)
        await cut_off.ensure_account(somebody.user_id, somebody.email)
        with pytest.raises(PlatformError):
            await cut_off.attempt(somebody.user_id)
        account = await cut_off.ensure_account(somebody.user_id, somebody.email)
        await cut_off.aclose()
    assert account.agent_status is AgentStatus.PROVISIONING
    assert "model gateway" in (account.status_reason or "")
    await lab.process().ready(somebody.user_id, timeout=TIMEOUT)
    await lab.assert_exactly_one_of_each(somebody.user_id)


async def test_chat_users_repair_makes_a_deleted_agent_and_a_deleted_key_again(
    lab: Lab, stack: RunningStack, somebody: Principal
) -> None:
    handle = await lab.process().ready(somebody.user_id, somebody.email, timeout=TIMEOUT)
    await lab.letta.as_member(handle.member_id).agents.delete(handle.agent_id)
    await lab.litellm.post("/key/delete", {"keys": (await lab.holdings(somebody.user_id)).key_hashes})
    assert await chat_users(stack, "repair", somebody.user_id) == [
        f"{somebody.user_id}: {(await lab.holdings(somebody.user_id)).account.agent_id}",
        "1 of 1 complete",
    ]
    await lab.assert_exactly_one_of_each(somebody.user_id, reason=AGENT_REPLACED)
    assert (await lab.holdings(somebody.user_id)).account.agent_id != handle.agent_id


async def test_chat_users_list_shows_the_status_of_an_account(
    lab: Lab, stack: RunningStack, somebody: Principal
) -> None:
    await lab.process().ready(somebody.user_id, somebody.email, timeout=TIMEOUT)
    lines = await chat_users(stack, "list", "--limit", "1000")
    assert f"{somebody.user_id}  active        {somebody.email}" in lines


async def test_chat_users_reencrypt_moves_a_key_to_a_new_secret_key(
    lab: Lab, stack: RunningStack, somebody: Principal
) -> None:
    await lab.process().ready(somebody.user_id, somebody.email, timeout=TIMEOUT)
    old, new = lab.settings.secret_key.get_secret_value(), secrets.token_urlsafe(48)
    moved = {"SECRET_KEY": new, "SECRET_KEY_PREVIOUS": old}
    assert await chat_users(stack, "reencrypt", somebody.user_id, **moved) == ["1 done"]
    account = (await lab.holdings(somebody.user_id)).account
    assert account.encrypted_key is not None
    KeyRing(SecretStr(new)).open(somebody.user_id, account.encrypted_key)
    moved_back = {"SECRET_KEY": old, "SECRET_KEY_PREVIOUS": new}
    assert await chat_users(stack, "reencrypt", somebody.user_id, **moved_back) == ["1 done"]
    await lab.assert_exactly_one_of_each(somebody.user_id)
