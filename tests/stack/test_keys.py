"""Users' keys while turns run: rotation without interrupting a reply, and the errors when LiteLLM refuses a key."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from server.keyring import fingerprint
from tests.stack.chat_client import TIMEOUT, ChatUser
from tests.stack.commands import chat_users
from tests.stack.provisioning_lab import Executioner, Killed, Lab, open_lab
from tests.stack.running_stack import RunningStack

REMEMBER = 'memory_insert {"label": "human", "new_string": "Sails", "insert_line": -1}'
REASONS = {
    "block": "The model gateway has blocked this user's key. This needs an operator.",
    "delete": "The model gateway no longer knows this user's key. This needs an operator.",
}


@pytest.fixture
async def lab(stack_env: dict[str, str]) -> AsyncIterator[Lab]:
    async with open_lab(stack_env) as lab:
        yield lab


@pytest.fixture
def gate() -> str:
    return uuid.uuid4().hex


async def key_of(lab: Lab, user: ChatUser) -> str:
    """The user's key in plain text, as only the server and Letta know it."""
    account = (await lab.holdings(user.id)).account
    assert account.encrypted_key is not None
    return lab.keys.open(user.id, account.encrypted_key).get_secret_value()


async def spoil(lab: Lab, user: ChatUser, how: str) -> None:
    """Change the user's key at LiteLLM, as an operator would by hand."""
    (name,) = (await lab.holdings(user.id)).key_hashes
    body: dict[str, object] = {"key": name} if how == "block" else {"keys": [name]}
    assert (await lab.litellm.post(f"/key/{how}", body)).ok


async def reason_of(user: ChatUser) -> Any:
    return (await user.get("/agent/status"))["reason"]


@pytest.mark.parametrize(
    ("option", "outcome"), [((), "The old one ends in ten minutes."), (("--now",), "The old one is blocked.")]
)
async def test_a_rotation_of_the_key_between_two_steps_does_not_disturb_the_turn(
    lab: Lab, stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser, gate: str, option: Any, outcome: str
) -> None:
    await ada.say("ECHO before")
    old = await key_of(lab, ada)
    async with ada.connect() as device:
        ack = await device.say(f"CALL AT {gate} {REMEMBER}")
        await stack.at_gate(http, gate)
        assert await chat_users(stack, "rotate-key", ada.id, *option) == [f"{ada.id} has a new key. {outcome}"]
        assert await key_of(lab, ada) != old
        await stack.open_gate(http, gate)
        end = await device.end_of(ack["turn_id"])
    assert end["type"] == "turn.completed"
    assert end["turn"]["usage"]["model_calls"] == 2
    await ada.say("ECHO after")
    await lab.assert_exactly_one_of_each(ada.id, retired=1)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["record", "ensure_key", "ensure_provider", "block_other_keys"])
async def test_a_rotation_killed_before_or_after_any_effect_is_finished_by_the_next_run(
    lab: Lab, ada: ChatUser, step: str, when: str
) -> None:
    await ada.say("ECHO before")
    witness = Executioner(10**6, after=False)
    await lab.process(witness).rotate_key(ada.id, "at once")
    between = await key_of(lab, ada)
    executioner = Executioner(witness.calls.index(step) + 1, after=when == "after")
    dying = lab.process(executioner)
    with pytest.raises(Killed):
        await dying.rotate_key(ada.id, "at once")
    await dying.aclose()
    await lab.process().ready(ada.id, timeout=TIMEOUT)
    await ada.say("ECHO after")
    changed = (step, when) != ("record", "before")
    assert (await key_of(lab, ada) != between) == changed
    await lab.assert_exactly_one_of_each(ada.id, retired=2 if changed else 1)


async def test_a_leaked_key_is_blocked_at_once_and_the_conversation_goes_on(
    lab: Lab, stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser
) -> None:
    await ada.say("ECHO before")
    leaked = await key_of(lab, ada)
    assert await chat_users(stack, "rotate-key", ada.id, "--now") == [
        f"{ada.id} has a new key. The old one is blocked."
    ]
    assert await _status_with(lab, http, leaked) == 401
    await ada.say("ECHO after")
    await lab.assert_exactly_one_of_each(ada.id, retired=1)


async def _status_with(lab: Lab, http: aiohttp.ClientSession, key: str) -> int:
    """The HTTP status of a model call with this key."""
    url = f"{str(lab.settings.litellm_base_url).rstrip('/')}/v1/chat/completions"
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "ECHO stolen"}]}
    async with http.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as response:
        return response.status


@pytest.mark.parametrize("how", ["block", "delete"])
async def test_a_refused_key_has_a_code_of_its_own_and_is_repaired(
    lab: Lab, stack: RunningStack, ada: ChatUser, how: str
) -> None:
    await ada.say("ECHO before")
    key = await key_of(lab, ada)
    await spoil(lab, ada, how)
    async with ada.connect() as device:
        ack = await device.say("ECHO refused")
        end = await device.end_of(ack["turn_id"])
        error = end["turn"]["error"]
        assert (end["type"], error["code"], error["retryable"]) == ("turn.failed", "key_refused", False)
        told = await device.wait_for(lambda frame: frame["type"] == "agent.status")
        assert (told["status"], told["reason"]) == ("active", REASONS[how])
        assert await reason_of(ada) == REASONS[how]
        listed = await chat_users(stack, "list", "--limit", "1000")
        assert f"{ada.id}  active        {ada.email}  {REASONS[how]}" in listed
        assert (await chat_users(stack, "repair", ada.id))[-1] == "1 of 1 complete"
        assert await reason_of(ada) is None
        await device.send(type="retry", id="again", turn_id=ack["turn_id"])
        done = await device.wait_for(lambda f: f["type"] == "turn.completed" and f["turn_id"] == ack["turn_id"])
        assert done["turn"]["message"]["content"] == "refused"
        frames = str(device.frames)
    assert await key_of(lab, ada) == key
    await lab.assert_exactly_one_of_each(ada.id)
    log = (stack.data_dir / "logs" / "server.log").read_text(encoding="utf-8")
    assert "key.refused" in log
    for shown in (frames, str(listed), log):
        assert key not in shown
        assert fingerprint(SecretStr(key)) not in shown


async def test_over_rest_a_refused_key_is_a_503_that_names_no_vendor(lab: Lab, ada: ChatUser) -> None:
    await ada.say("ECHO before")
    await spoil(lab, ada, "block")
    status, problem = await ada.send("ECHO refused")
    assert (status, problem["code"], problem["retryable"]) == (503, "key_refused", False)
    assert problem["detail"] == "The model gateway does not accept your account's key. Please contact support."


async def test_a_key_blocked_between_two_steps_fails_the_turn_with_its_own_code(
    lab: Lab, stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser, gate: str
) -> None:
    await ada.say("ECHO before")
    async with ada.connect() as device:
        ack = await device.say(f"CALL AT {gate} {REMEMBER}")
        await stack.at_gate(http, gate)
        await spoil(lab, ada, "block")
        await stack.open_gate(http, gate)
        assert (await device.end_of(ack["turn_id"]))["turn"]["error"]["code"] == "key_refused"
        await device.wait_for(lambda frame: frame["type"] == "agent.status")
    assert await reason_of(ada) == REASONS["block"]


async def test_an_agent_with_another_key_than_its_users_is_repaired_automatically(lab: Lab, ada: ChatUser) -> None:
    """As after restoring Letta's database to a day before the last rotation."""
    await ada.say("ECHO before")
    account = (await lab.holdings(ada.id)).account
    member = lab.letta.as_member(str(account.member_id))
    await member.patch(f"/v1/providers/{account.provider_id}", cast_to=object, body={"api_key": "sk-of-yesterday"})
    status, problem = await ada.send("ECHO one")
    assert (status, problem["code"]) == (503, "key_refused")
    async with asyncio.timeout(TIMEOUT):
        while (answer := await ada.send("ECHO two"))[0] == 503:
            await asyncio.sleep(0.3)
    assert (answer[0], answer[1]["message"]["content"]) == (200, "two")
    assert await reason_of(ada) is None
