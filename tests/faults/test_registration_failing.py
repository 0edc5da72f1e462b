"""Each service failing at each step of registration: it continues automatically, and leaves exactly one of each object.

Users of the table are signed up at Supabase first, so that a fault can be injected for one user, and all steps fail at
the same time. Their first message is sent while their agent cannot be made.
"""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import pytest

from tests.faults.failing_world import FailingWorld, failing_world, unique
from tests.faults.fault_kinds import Answer, Hang, Interrupted, Overheard, Reset
from tests.faults.http_faults import Fault, FaultProxy
from tests.stack.chat_client import TIMEOUT, ChatUser, Json, register
from tests.stack.provisioning_lab import open_lab
from tests.stack.running_stack import RunningStack

SIGN_UP: Final = "^/auth/v1/signup"
SIGN_IN: Final = "^/auth/v1/token.*grant_type=password"
REFRESH: Final = "^/auth/v1/token.*grant_type=refresh_token"
JSON: Final = "application/json"

AT_AUTH: Final[dict[str, Fault]] = {
    "reset": Reset(),
    "500": Answer(500),
    "500 in JSON": Answer(500, b'{"code": 500, "error_code": "unexpected_failure", "msg": "sk-vendor-secret"}', JSON),
    "502": Answer(502),
    "503": Answer(503),
    "429": Answer(429, b'{"code": 429, "error_code": "over_request_rate_limit", "msg": "sk-vendor-secret"}', JSON, 17),
    "403 of a gateway": Answer(403),
    "a page of HTML": Answer(200),
    "no JSON": Answer(200, b"{", JSON),
    "another shape": Answer(200, b"{}", JSON),
    "no answer": Hang(),
}

ONE_AFTER_THE_OTHER: Final[tuple[Fault, ...]] = (
    Reset(),
    Reset(forwarded=True),
    Answer(500),
    Answer(429, retry_after=1),
    Answer(200),
    Interrupted(1, "reset"),
)
"""The faults of each step of each user, one at a time."""


@dataclass(frozen=True, slots=True)
class Step:
    """A request that provisioning makes. `by_member`: it names the user's member at Letta, and not the user."""

    service: str
    method: str
    path: str
    by_member: bool = False


STEPS: Final[dict[str, Step]] = {
    "reading the profile": Step("supabase", "POST", "rpc/get_profile"),
    "claiming": Step("supabase", "POST", "rpc/claim_provisioning"),
    "recording": Step("supabase", "POST", "rpc/record_provisioning"),
    "releasing the claim": Step("supabase", "POST", "rpc/release_provisioning"),
    "the customer": Step("litellm", "POST", "^/user/new"),
    "the key": Step("litellm", "POST", "^/key/generate"),
    "the organization": Step("letta", "POST", "^/v1/admin/orgs/"),
    "the member": Step("letta", "POST", "^/v1/admin/users/"),
    "the tools": Step("letta", "POST", "^/v1/tools/add-base-tools", by_member=True),
    "searching the provider": Step("letta", "GET", "^/v1/providers/", by_member=True),
    "the provider": Step("letta", "POST", "^/v1/providers/", by_member=True),
    "searching the agent": Step("letta", "GET", "^/v1/agents/"),
    "the agent": Step("letta", "POST", "^/v1/agents/"),
    "searching the conversation": Step("letta", "GET", "^/v1/conversations/", by_member=True),
    "the conversation": Step("letta", "POST", "^/v1/conversations/", by_member=True),
}


@pytest.fixture(scope="module")
async def world(
    stack: RunningStack, server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[FailingWorld]:
    log = tmp_path_factory.mktemp("registration") / "server.log"
    async with failing_world(stack, server_env, log) as world:
        yield world


# -- provisioning: all cases begin with the first test, on a server of their own, and may open its breakers -----------


async def _exactly_one_of_each(world: FailingWorld, user: ChatUser) -> None:
    await world.agent_is_ready(user)
    async with open_lab(dict(world.env)) as lab:
        await lab.assert_exactly_one_of_each(user.id)


async def _first_message_is_answered(world: FailingWorld, user: ChatUser, turn: Json, text: str) -> None:
    assert (await world.first_reply(user, turn))["message"]["content"] == text
    assert await world.model_calls(text) == 1


async def _send(user: ChatUser, text: str) -> Json:
    """Send a message until it is accepted."""
    body = {"content": f"ECHO {text}", "client_message_id": str(uuid.uuid4()), "stream": False}
    async with asyncio.timeout(TIMEOUT):
        while True:
            status, turn = await user.call("POST", "/chat/message", body, Prefer="respond-async")
            if status == 202:
                return dict(turn)
            assert (status, turn["code"], turn["retryable"]) == (503, "supabase_unavailable", True), turn
            await asyncio.sleep(0.5)


async def _step_fails(world: FailingWorld, name: str) -> None:
    """The step fails with one fault after the other."""
    step, user, text = STEPS[name], await world.new_visitor(), unique()
    proxy: FaultProxy = getattr(world, step.service)
    member = Overheard()

    def member_id() -> str | None:
        found = re.search(r'"id": ?"(user-[0-9a-f-]+)"', member.text)
        return found[1] if found else None

    mentions: str | Callable[[], str | None] = member_id if step.by_member else user.id
    with ExitStack() as broken:
        if step.by_member:
            broken.enter_context(world.letta.breaking(member, "POST", "^/v1/admin/users/", mentions=user.id, times=1))
        rules = [
            broken.enter_context(proxy.breaking(fault, step.method, step.path, mentions=mentions, times=1))
            for fault in ONE_AFTER_THE_OTHER
        ]
        turn = await _send(user, text)
        await _first_message_is_answered(world, user, turn, text)
        assert rules[0].played == 1
    await _exactly_one_of_each(world, user)


async def _letta_hangs(world: FailingWorld) -> None:
    user, text = await world.new_visitor(), unique()
    with world.letta.breaking(Hang(), "POST", "^/v1/agents/", mentions=user.id, times=1) as hanging:
        turn = await _send(user, text)
        await _first_message_is_answered(world, user, turn, text)
        assert hanging.played == 1
    await _exactly_one_of_each(world, user)


async def _letta_is_unavailable_for_longer_than_a_message_waits(world: FailingWorld) -> None:
    user, text = await world.new_visitor(), unique()
    with world.letta.breaking(Answer(503), "POST", "^/v1/admin/orgs/", mentions=user.id):
        turn = world.presentable(await user.ended((await _send(user, text))["id"]))
        error = turn["error"]
        assert (turn["status"], error["code"], error["retryable"]) == ("failed", "agent_unavailable", True), turn
        assert error["retry_after"] > 0
        status = world.presentable(await user.get("/agent/status"))
        assert status["status"] == "provisioning"
        assert "goes on by itself" in status["reason"]
        assert (await user.get("/chat/history"))["data"][0]["content"] == f"ECHO {text}"
    await user.call("POST", f"/chat/turns/{turn['id']}/retry")
    await _first_message_is_answered(world, user, turn, text)
    await _exactly_one_of_each(world, user)


async def _only_the_background_repair(world: FailingWorld) -> None:
    """Without any further request, the background repair completes the account."""
    user = await world.new_visitor()
    with world.letta.breaking(Answer(500), "POST", "^/v1/agents/", mentions=user.id, times=1) as failing:
        await user.get("/auth/me")
        await failing.happened()
    await _exactly_one_of_each(world, user)


ON_ITS_OWN: Final = {
    "letta hangs": _letta_hangs,
    "letta is unavailable for longer than a message waits": _letta_is_unavailable_for_longer_than_a_message_waits,
    "nothing but the background repair": _only_the_background_repair,
}


@pytest.fixture(scope="module", autouse=True)
async def cases(
    stack: RunningStack, server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, "asyncio.Task[None]"]]:
    log = tmp_path_factory.mktemp("provisioning") / "server.log"
    async with failing_world(stack, server_env, log) as world:
        tasks = {name: asyncio.ensure_future(case(world)) for name, case in ON_ITS_OWN.items()}
        tasks |= {name: asyncio.ensure_future(_step_fails(world, name)) for name in STEPS}
        yield tasks
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


# -- sign-up and sign-in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AT_AUTH)
async def test_a_sign_up_that_fails_says_why_and_succeeds_later(world: FailingWorld, name: str) -> None:
    body = {"email": f"{uuid.uuid4().hex[:12]}@example.com", "password": "Passw0rd-2026", "name": "Ada"}
    await _refused_then_granted(world, "register", body, AT_AUTH[name], SIGN_UP, body["email"])


@pytest.mark.parametrize("name", AT_AUTH)
async def test_a_sign_in_that_fails_says_why_and_succeeds_later(world: FailingWorld, name: str) -> None:
    user = (await world.resident()).user
    body = {"email": user.email, "password": user.password}
    await _refused_then_granted(world, "login", body, AT_AUTH[name], SIGN_IN, user.email)


@pytest.mark.parametrize("name", AT_AUTH)
async def test_a_refresh_that_fails_says_why_and_succeeds_later(world: FailingWorld, name: str) -> None:
    user = (await world.resident()).user
    body = {"refresh_token": user.refresh_token}
    pair = await _refused_then_granted(world, "refresh", body, AT_AUTH[name], REFRESH, user.refresh_token)
    user.access_token, user.refresh_token = pair["access_token"], pair["refresh_token"]


async def test_a_user_who_signed_up_without_a_profile_gets_one_at_sign_in(world: FailingWorld) -> None:
    body = {"email": f"{uuid.uuid4().hex[:12]}@example.com", "password": "Passw0rd-2026"}
    with world.supabase.breaking(Answer(503), "POST", "rpc/ensure_profile", mentions=body["email"]):
        status, problem = await _post(world, "register", body)
        assert (status, problem["code"], problem["retryable"]) == (503, "supabase_unavailable", True)
        world.presentable(problem)
    signed_in = await _until(world, "login", body)
    assert signed_in["user"]["agent_status"] in ("provisioning", "active")


async def test_registration_answers_while_letta_and_litellm_are_unavailable_and_completes_when_they_recover(
    world: FailingWorld,
) -> None:
    text = unique()
    async with world.letta.refusing(), world.litellm.refusing():
        user = await register(world.http, world.server.url)
        status = world.presentable(await user.get("/agent/status"))
        assert status["status"] == "provisioning"
        turn = await _send(user, text)
    await _first_message_is_answered(world, user, turn, text)
    await _exactly_one_of_each(world, user)


@pytest.mark.parametrize("name", [*STEPS, *ON_ITS_OWN])
async def test_exactly_one_agent_is_made_when_provisioning_fails_at(
    cases: "dict[str, asyncio.Task[None]]", name: str
) -> None:
    await cases[name]


async def _post(world: FailingWorld, action: str, body: Json) -> tuple[int, Json]:
    async with world.http.post(f"{world.server.url}/api/v1/auth/{action}", json=body) as response:
        return response.status, await response.json()


async def _refused_then_granted(
    world: FailingWorld, action: str, body: Json, fault: Fault, path: str, mentions: str
) -> Json:
    limited = isinstance(fault, Answer) and fault.status == 429
    with world.supabase.breaking(fault, "POST", path, mentions=mentions):
        status, problem = await _post(world, action, body)
    world.presentable(problem)
    expected = (429, "rate_limited", True, 17) if limited else (503, "supabase_unavailable", True, 5)
    assert (status, problem["code"], problem["retryable"], problem["retry_after"]) == expected
    return await _until(world, action, body)


async def _until(world: FailingWorld, action: str, body: Json) -> Json:
    """The tokens, once the breaker lets calls through again."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            status, answer = await _post(world, action, body)
            if status in (200, 201):
                return answer
            assert (status, answer["code"]) == (503, "supabase_unavailable"), answer
            await asyncio.sleep(0.3)
