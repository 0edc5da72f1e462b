"""Deletion of a user on the real services: a search through every table of all databases finds nothing."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress

import aiohttp
import psycopg
import pytest

from server.accounts.deletion import STEPS, AccountDeletion, DeletionServices
from server.adapters.letta.directory import LettaDirectory
from server.adapters.litellm.billing import LiteLLMBilling
from server.adapters.supabase.accounts import SupabaseAccountStore
from server.adapters.supabase.sessions import SupabaseSessionStore
from server.keyring import fingerprint
from server.ports import FencedError, Principal
from server.protocol.errors import PlatformError
from tests.conftest import NewServer
from tests.stack.chat_client import TIMEOUT, ChatUser, register
from tests.stack.commands import chat_users
from tests.stack.conftest import NewUser
from tests.stack.needles import tables_with
from tests.stack.provisioning_lab import Executioner, Killed, Lab, open_lab
from tests.stack.running_stack import RunningStack
from tests.stack.supabase_users import sign_up

LEFT = {
    "postgres.auth.audit_log_entries",
    "litellm.public.LiteLLM_SpendLogs",
    "litellm.public.LiteLLM_DailyUserSpend",
    "litellm.public.LiteLLM_DailyEndUserSpend",
    "litellm.public.LiteLLM_DailyTagSpend",
    "litellm.public.LiteLLM_DailyTeamSpend",
    "litellm.public.LiteLLM_EndUserTable",
}
"""What docs/operations.md names: the services' interfaces leave it."""


@pytest.fixture
async def lab(stack_env: dict[str, str]) -> AsyncIterator[Lab]:
    async with open_lab(stack_env) as lab:
        yield lab


async def needles(lab: Lab, user: ChatUser, *words: str) -> list[str]:
    """All that names the user: ids, address, hashes of keys, and what the user said."""
    account = (await lab.holdings(user.id)).account
    assert account.encrypted_key is not None
    key = lab.keys.open(user.id, account.encrypted_key)
    ids = (
        account.organization_id, account.member_id, account.provider_id, account.agent_id, account.conversation_id,
    )  # fmt: skip
    named = [user.id, user.email, fingerprint(key), key.get_secret_value(), account.encrypted_key, *ids, *words]
    return [str(one) for one in named]


async def lived(user: ChatUser, word: str) -> None:
    """Everything that leaves a trace: turns that end in each way, a tool call, memory, a name, another key."""
    await user.say(f"ECHO {word} likes tea")
    await user.say(f"CALL archival_memory_insert {json.dumps({'content': f'{word} has a cat'})}")
    assert (await user.send(f"ERR 400 {word}"))[1]["code"] == "model_error"
    assert (await user.call("PATCH", "/user/profile", {"name": f"Ada {word}"}))[0] == 200
    assert (await user.ask("PATCH", "/agent/memory/human", {"value": f"{word} is her name"}))[0] == 200
    assert (await user.ask("POST", "/agent/memory/archival", {"text": f"{word} likes rain"}))[0] == 201


async def deleted(env: Mapping[str, str], user: ChatUser, **proof: str) -> None:
    """Delete the account. 204 says that it is gone, 202 that it will be."""
    status, _ = await user.call("DELETE", "/user", proof or None)
    assert status in (202, 204)
    async with (
        asyncio.timeout(TIMEOUT),
        await psycopg.AsyncConnection.connect(env["SUPABASE_DB_URL"], autocommit=True) as connection,
    ):
        while await (await connection.execute("select from auth.users where id = %s", [user.id])).fetchone():
            assert status == 202
            await asyncio.sleep(0.3)


async def purged(stack: RunningStack, words: Sequence[str]) -> None:
    """Purge until nothing is left: LiteLLM writes its log some seconds late."""
    async with asyncio.timeout(2 * TIMEOUT):
        while True:
            await chat_users(stack, "purge")
            found = await tables_with(stack.env, words)
            if not found:
                return


async def test_a_sum_that_litellm_writes_after_a_purge_is_removed_by_the_next(stack: RunningStack) -> None:
    """By then nothing links the key to its user any more."""
    key = uuid.uuid4().hex * 2
    late = 'insert into "LiteLLM_DailyTagSpend" (id, date, api_key, updated_at) values (%s, %s, %s, now())'
    async with await psycopg.AsyncConnection.connect(stack.env["LITELLM_DB_URL"]) as connection:
        await connection.execute(late, (str(uuid.uuid4()), "2026-11-29", key))
    await chat_users(stack, "purge")
    assert await tables_with(stack.env, [key]) == {}


async def test_nothing_of_a_deleted_user_is_left_in_any_table(
    stack: RunningStack, http: aiohttp.ClientSession, lab: Lab, new_user: NewUser
) -> None:
    word = f"zebra{uuid.uuid4().hex[:12]}"
    user, other = await new_user(f"Ada {word}"), await new_user("Bob")
    await lived(user, word)
    await other.say("ECHO I stay")
    words = await needles(lab, user, word)
    before = await tables_with(stack.env, words)
    assert {"postgres.public.messages", "letta.public.messages", "litellm.public.LiteLLM_UserTable"} <= set(before)

    await deleted(stack.env, user)

    found = await tables_with(stack.env, words)
    print(found)  # noqa: T201 - for docs/operations.md
    assert set(found) <= LEFT
    assert all(word not in hits for hits in found.values()), "no text is left"
    await purged(stack, words)
    for path in ("/user/profile", "/chat/history"):
        status, problem = await user.call("GET", path)
        assert (status, problem["code"]) in ((401, "unauthorized"), (404, "not_found")) or not problem["data"]
    assert (await other.get("/chat/history"))["data"][0]["content"]
    assert (await other.say("ECHO still here"))["status"] == "completed"


async def test_the_same_address_registers_again_at_once_and_finds_nothing(
    stack: RunningStack, http: aiohttp.ClientSession, new_user: NewUser
) -> None:
    user = await new_user("Ada")
    await user.say("ECHO hello")
    await deleted(stack.env, user)
    body = {"email": user.email, "password": user.password, "name": "Ada"}
    async with http.post(f"{stack.url}/api/v1/auth/register", json=body) as response:
        assert response.status == 201
        again = await response.json()
    fresh = ChatUser(
        http, stack.url, again["user"]["id"], user.email, user.password, again["access_token"], again["refresh_token"]
    )
    assert fresh.id != user.id
    assert (await fresh.get("/chat/history"))["data"] == []
    assert (await fresh.say("ECHO hello again"))["status"] == "completed"
    await fresh.call("DELETE", "/user")


async def test_a_reply_that_runs_is_stopped_by_the_deletion(
    stack: RunningStack, http: aiohttp.ClientSession, new_user: NewUser
) -> None:
    user = await new_user("Ada")
    gate = f"gate-{uuid.uuid4().hex}"
    async with user.connect() as device:
        ack = await device.say(f"GATE {gate} 1 3")
        await device.wait_for(lambda frame: frame["type"] == "message.delta" and frame["turn_id"] == ack["turn_id"])
        await deleted(stack.env, user)
        assert device._reader is not None
        await asyncio.wait((device._reader,), timeout=TIMEOUT)
        assert device.socket.close_code == 4503
    await stack.open_gate(http, gate)


async def test_the_password_or_a_recent_sign_in_is_needed(
    stack: RunningStack, http: aiohttp.ClientSession, new_user: NewUser
) -> None:
    user = await new_user("Ada")
    status, problem = await user.call("DELETE", "/user", {"current_password": "wrong password 1"})
    assert (status, problem["code"]) == (403, "reauthentication_required")
    await deleted(stack.env, user, current_password=user.password)


async def test_an_operator_exports_and_deletes_a_user(stack: RunningStack, new_user: NewUser, lab: Lab) -> None:
    user = await new_user("Ada")
    await user.say("ECHO I like tea")
    exported = json.loads("\n".join(await chat_users(stack, "export", user.id)))
    assert exported["complete"] is True
    assert "I like tea" in exported["messages"][0]["content"]
    assert await chat_users(stack, "delete", user.id, "--yes") == [f"{user.id} is deleted."]
    assert await SupabaseAccountStore(lab.supabase).get(user.id) is None


def _deletion(lab: Lab, executioner: Executioner | None = None) -> AccountDeletion:
    guard = executioner.guard if executioner else lambda service: service
    services = DeletionServices(
        accounts=guard(SupabaseAccountStore(lab.supabase)),
        turns=SupabaseSessionStore(lab.supabase),
        billing=guard(LiteLLMBilling(lab.litellm)),
        directory=guard(LettaDirectory(lab.letta)),
    )
    return AccountDeletion(services, owner="deletion-tests")


@pytest.fixture
async def quiet(stack_env: dict[str, str], supabase_env: dict[str, str]) -> AsyncIterator[Lab]:
    """On a Supabase that no server uses: one would continue the deletions, too."""
    async with open_lab(stack_env | supabase_env) as lab:
        yield lab


async def completed(lab: Lab, user_id: str) -> None:
    """Run the deletion until it is complete: a service may be slow."""
    accounts = SupabaseAccountStore(lab.supabase)
    async with asyncio.timeout(TIMEOUT):
        while await accounts.get(user_id) is not None:
            with suppress(PlatformError, FencedError):
                await _deletion(lab).run(user_id)


CALLS = ("begin_deletion", "get", "claim", "delete_customer", "delete_everything", "delete")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
async def test_a_crash_before_or_after_any_effect_is_completed_by_the_next_run(
    quiet: Lab, stack_env: dict[str, str], supabase_env: dict[str, str], call: str, when: str
) -> None:
    somebody: Principal = await sign_up(quiet.supabase)
    provisioner = quiet.process()
    handle = await provisioner.ready(somebody.user_id, somebody.email, timeout=TIMEOUT)
    await provisioner.aclose()
    executioner = Executioner(CALLS.index(call) + 1, after=when == "after")
    dying = _deletion(quiet, executioner)
    with pytest.raises(Killed):
        await dying.delete(somebody.user_id, timeout=TIMEOUT)
    await dying.aclose()
    assert executioner.calls == list(CALLS[: CALLS.index(call) + (when == "after")])
    if (call, when) == (CALLS[0], "before"):
        await _deletion(quiet).begin(somebody.user_id)
    await completed(quiet, somebody.user_id)
    found = await tables_with(
        stack_env | supabase_env, [somebody.user_id, somebody.email, handle.member_id, handle.agent_id]
    )
    assert set(found) <= LEFT


async def test_a_deletion_killed_between_any_two_requests_to_letta_is_completed(
    new_server: NewServer, server_env: dict[str, str], http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    word, server = f"zebra{uuid.uuid4().hex[:12]}", await new_server(REDIS_URL=None)
    user = await register(http, server.url, f"Ada {word}")
    await lived(user, word)
    server.kill()  # it would continue the deletion, too
    async with open_lab(server_env) as lab:
        words = await needles(lab, user, word)
        await _deletion(lab).begin(user.id)
        assert await _runs_killed_by_requests(lab, user, monkeypatch) > len(STEPS)
    found = await tables_with(server_env, words)
    assert set(found) <= LEFT
    assert all(word not in hits for hits in found.values())


async def _runs_killed_by_requests(lab: Lab, user: ChatUser, monkeypatch: pytest.MonkeyPatch) -> int:
    """Kill the nth run of a deletion after n requests to Letta, until one is complete. Returns its n."""
    repeatable, left = lab.letta.repeatable, 0

    async def mortal(call: object, **options: float) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return await repeatable(call, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(lab.letta, "repeatable", mortal, raising=False)
    for requests in range(1, 100):
        left = requests
        with suppress(Killed, PlatformError, FencedError):  # a slow service fails a run as well
            await _deletion(lab).run(user.id)
            return requests
    raise AssertionError("it never completed")


async def test_a_server_that_starts_continues_a_deletion_that_another_began(
    new_server: NewServer, server_env: dict[str, str], http: aiohttp.ClientSession
) -> None:
    first = await new_server("first", REDIS_URL=None)
    user = await register(http, first.url)
    await user.say("ECHO hello")
    first.kill()
    async with open_lab(server_env) as own:
        accounts = SupabaseAccountStore(own.supabase)
        await accounts.begin_deletion(user.id)
        await new_server("second", REDIS_URL=None)
        async with asyncio.timeout(TIMEOUT):
            while await accounts.get(user.id) is not None:
                await asyncio.sleep(0.1)
