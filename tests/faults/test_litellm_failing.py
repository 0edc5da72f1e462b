"""LiteLLM failing: for Letta's calls of the model, and for the server's calls for prices and budgets.

Letta itself calls the model up to three times when it was refused or got no answer, but not again after the first word.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import pytest

from tests.faults.failing_world import FailingWorld, Resident, failing_world, unique
from tests.faults.fault_kinds import VENDOR_WORDS, Answer, Hang, Interrupted, Reset
from tests.faults.http_faults import Fault
from tests.stack.chat_client import TIMEOUT
from tests.stack.running_stack import RunningStack

MODEL: Final = "^/v1/chat/completions"
PRICES: Final = "^/model/info"
BUDGET: Final = "^/user/info"

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
PRICE: Final = "the price does not come"
AT_ONCE: Final = 5
TURN_SECONDS: Final = "35"
"""Long enough for three calls by Letta with the pauses of a 429, short enough to wait for."""


def _refusal(kind: str) -> bytes:
    return b'{"error": {"message": "%s", "type": "%s"}}' % (VENDOR_WORDS.encode(), kind.encode())


@dataclass(frozen=True, slots=True)
class Model:
    """One fault of the model, and how the turn fails. `asked`: the number of Letta's calls; `text`: the text that is
    delivered at least (one more piece may be under way in LiteLLM or Letta)."""

    fault: Fault
    code: str = "model_error"
    asked: int = 1
    text: str | None = None
    retryable: bool = True
    status: str = "failed"


MODELS: Final[dict[str, Model]] = {
    "500": Model(Answer(500), asked=3),
    "502": Model(Answer(502), asked=3),
    "503": Model(Answer(503), asked=3),
    "429 with Retry-After": Model(Answer(429, _refusal("throttling_error"), JSON, 7), "rate_limited", asked=3),
    "a key that is not known": Model(Answer(401, _refusal("auth_error"), JSON), "key_refused", retryable=False),
    "a budget that is used up": Model(
        Answer(422, _refusal("budget_exceeded"), JSON), "budget_exceeded", status="unsent"
    ),
    "reset": Model(Reset(), asked=3),
    "reset after the model has answered": Model(Reset(forwarded=True), asked=3),
    "a page of HTML": Model(Answer(200)),
    "no JSON": Model(Answer(200, b"{", JSON)),
    "an empty stream": Model(Answer(200, b"", EVENTS)),
    "an event that is no JSON": Model(Answer(200, b"data: {oops\n\n", EVENTS)),
    "bytes that are no text": Model(Answer(200, b"data: \xff\xfe\n\n", EVENTS)),
    "reset in mid-stream": Model(Interrupted(b" w1", "reset"), text="w0"),
    "garbage in mid-stream": Model(Interrupted(b" w1", "end", b"data: {oops\n\n"), text="w0"),
    "no answer": Model(Hang(), "turn_timeout"),
    "silence in mid-stream": Model(Interrupted(b" w1", "silence"), "turn_timeout", text="w0"),
}

ANSWERS: Final[dict[str, Fault]] = {
    "reset": Reset(),
    "500": Answer(500),
    "502": Answer(502),
    "429": Answer(429, retry_after=1),
    "403": Answer(403),
    "a page of HTML": Answer(200),
    "no JSON": Answer(200, b"{", JSON),
    "another shape": Answer(200, b"[]", JSON),
    "bytes that are no text": Answer(200, b"\xff\xfe", JSON),
    "a body cut short": Interrupted(1, "reset"),
    "no answer": Hang(),
}
"""Faulty answers to the server's own calls of LiteLLM."""


@pytest.fixture(scope="module")
async def world(
    stack: RunningStack, server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[FailingWorld]:
    log = tmp_path_factory.mktemp("litellm") / "server.log"
    async with failing_world(stack, server_env, log, TURN_TIMEOUT_SECONDS=TURN_SECONDS) as world:
        yield world


@pytest.fixture
async def ada(world: FailingWorld) -> Resident:
    return await world.resident()


# -- the model -------------------------------------------------------------------------------------------------------


async def _model_fails(world: FailingWorld, name: str) -> None:
    case, user, text = MODELS[name], (await world.new_resident()).user, unique()
    with world.model.breaking(case.fault, "POST", MODEL, mentions=text) as broken:
        async with user.connect() as device:
            ack = await device.say(f"{text} SLOW 4 0.05")
            end = world.presentable(await device.end_of(ack["turn_id"]))
        turn, error = end["turn"], end["turn"]["error"]
        assert (turn["status"], error["code"], error["retryable"]) == (case.status, case.code, case.retryable), turn
        reply = turn["message"] and turn["message"]["content"]
        assert reply.startswith(case.text) if case.text else reply is None, reply
        assert broken.played == case.asked
    stored = await world.stored_turns(user, f"{text} SLOW 4 0.05")
    assert [row["status"] for row in stored] == [case.status]
    assert world.letta.requests("POST", "/messages", text) == 1
    if case.retryable:
        assert (await world.retry_completes(user, turn))["message"]["content"] == "w0 w1 w2 w3"
    await world.assert_works(user)


async def _model_refuses_connections(world: FailingWorld) -> None:
    user, text = (await world.new_resident()).user, unique()
    async with world.model.refusing():
        status, problem = await user.call("POST", "/chat/message", {"content": f"ECHO {text}", "stream": False})
    assert (status, problem["code"], problem["retryable"]) == (502, "model_error", True)
    turn = world.presentable(problem)["turn"]
    assert await world.model_calls(text) == 0
    assert (await world.retry_completes(user, turn))["message"]["content"] == text
    assert await world.model_calls(text) == 1


async def _prices_do_not_come(world: FailingWorld) -> None:
    """The first of all cases: no price is known yet, and none becomes known by the turn of another case."""
    with world.litellm.breaking(Hang(), "GET", PRICES) as hanging:
        user = (await world.new_resident()).user
        turn = await user.say(f"ECHO {unique()}")
        assert (turn["cost"], turn["usage"]["model_calls"]) == (None, 1)
        assert hanging.played > 0
    async with asyncio.timeout(2 * TIMEOUT):
        while (await user.say(f"ECHO {unique()}"))["cost"] is None:
            await asyncio.sleep(1)


@pytest.fixture(scope="module", autouse=True)
async def cases(world: FailingWorld) -> AsyncIterator[dict[str, "asyncio.Task[None]"]]:
    """All faults of the model, a few at a time, each with a user of its own; they begin with the first test."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def in_turn(case: Callable[..., Awaitable[None]], *arguments: object) -> None:
        async with slots:
            await case(world, *arguments)

    longest_first = sorted(MODELS, key=lambda name: MODELS[name].code == "model_error")
    tasks = {PRICE: asyncio.ensure_future(in_turn(_prices_do_not_come))}
    tasks |= {name: asyncio.ensure_future(in_turn(_model_fails, name)) for name in longest_first}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


# -- the server's own calls of LiteLLM ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ANSWERS)
async def test_usage_is_answered_whatever_litellm_answers(world: FailingWorld, ada: Resident, name: str) -> None:
    before = await ada.user.get("/user/usage")
    with world.litellm.breaking(ANSWERS[name], "GET", BUDGET, mentions=ada.user.id):
        usage = world.presentable(await ada.user.get("/user/usage"))
    assert {**usage, "projection": None} == {**before, "projection": None}


@pytest.mark.parametrize("name", MODELS)
async def test_a_turn_fails_with_its_code_and_a_retry_completes_when_the_model_fails_by(
    cases: "dict[str, asyncio.Task[None]]", name: str
) -> None:
    await cases[name]


async def test_a_turn_fails_with_its_code_and_a_retry_completes_when_the_model_gateway_refuses_connections(
    world: FailingWorld, cases: "dict[str, asyncio.Task[None]]"
) -> None:
    await asyncio.wait(cases.values())
    await _model_refuses_connections(world)


async def test_a_turn_ends_without_its_cost_while_the_price_does_not_come(
    cases: "dict[str, asyncio.Task[None]]",
) -> None:
    await cases[PRICE]


async def test_sign_in_reads_and_messages_work_while_litellm_is_unavailable(world: FailingWorld, ada: Resident) -> None:
    async with world.litellm.refusing():
        await world.assert_works(ada.user)
        assert (await ada.user.get("/chat/history"))["data"]
        bob = await world.new_user()
        status = (await bob.get("/agent/status"))["status"]
        assert status == "provisioning"
        body = {"content": "ECHO early", "stream": False}
        code, turn = await bob.call("POST", "/chat/message", body, Prefer="respond-async")
        assert code == 202
    assert (await world.first_reply(bob, turn))["message"]["content"] == "early"
