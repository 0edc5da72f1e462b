"""A stop stops the model: the words that it wrote and the charge, on the real services."""

import asyncio
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from tests.letta_world import LettaWorld, letta_world, text_of
from tests.stack.bookkeeper import Bookkeeper, Call
from tests.stack.chat_client import TIMEOUT, ChatUser
from tests.stack.conftest import NewUser
from tests.stack.patches import applied_patches
from tests.stack.running_stack import RunningStack

pytestmark = pytest.mark.skipif("stop" not in applied_patches(), reason="Letta as released does not stop its model")
Json = dict[str, Any]
TOKENS_A_WORD = 2


@pytest.fixture(scope="module")
async def world(stack_env: dict[str, str]) -> AsyncIterator[LettaWorld]:
    async with letta_world(stack_env) as opened:
        yield opened


async def stopped(
    stack: RunningStack, http: aiohttp.ClientSession, user: ChatUser, directive: str, shown: int
) -> tuple[Json, list[Call]]:
    """Stop a reply after some words. Returns the model's record of the request, and the charge."""
    content = f"{uuid.uuid4().hex} {directive}"
    async with user.connect() as device:
        turn_id = (await device.say(content))["turn_id"]
        await device.wait_for(lambda _: len(device.text_of(turn_id).split()) >= shown)
        await device.send(type="cancel", id="stop", turn_id=turn_id)
        assert (await device.end_of(turn_id))["type"] == "turn.cancelled"
    seen = await _seen(stack, http, content, lambda request: request["state"] != "running")
    book = await Bookkeeper(stack.env, http).settled(user)
    assert book.wrong == []
    assert book.turn(turn_id)["cost_status"] == "settled"
    return seen, book.of_turn(turn_id)


async def _seen(stack: RunningStack, http: aiohttp.ClientSession, content: str, wanted: Callable[[Json], bool]) -> Json:
    async with asyncio.timeout(TIMEOUT):
        while True:
            requests = await stack.model_log(http, content)
            if requests and wanted(requests[-1]):
                [request] = requests
                return request
            await asyncio.sleep(0.1)


async def test_a_writing_model_is_stopped_and_only_its_words_are_charged(
    stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser
) -> None:
    seen, [call] = await stopped(stack, http, ada, "SLOW 1000 0.1", shown=5)
    assert seen["state"] == "gone"
    assert 5 <= seen["words"] < 1000
    assert 5 * TOKENS_A_WORD <= call.completion_tokens <= (seen["words"] + 1) * TOKENS_A_WORD
    assert (call.status, call.cost > 0) == ("success", True)


async def test_a_silent_model_is_stopped_and_exactly_its_words_are_charged(
    stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser
) -> None:
    """The model sends no data at which Letta would check whether the run is cancelled."""
    seen, [call] = await stopped(stack, http, ada, "STALL 3", shown=3)
    assert (seen["state"], seen["words"]) == ("gone", 3)
    assert call.completion_tokens == 3 * TOKENS_A_WORD


async def test_users_who_stop_at_once_stop_only_their_own_models(
    stack: RunningStack, http: aiohttp.ClientSession, new_user: NewUser
) -> None:
    stopping, going_on = await new_user(), await new_user()
    async with going_on.connect() as device:
        gate = uuid.uuid4().hex
        turn_id = (await device.say(f"GATE {gate} 3 3"))["turn_id"]
        await stack.at_gate(http, gate)
        seen, _ = await stopped(stack, http, stopping, "STALL 2", shown=2)
        assert seen["state"] == "gone"
        await stack.open_gate(http, gate)
        assert (await device.end_of(turn_id))["type"] == "turn.completed"
        assert device.text_of(turn_id).split() == [f"w{number}" for number in range(6)]


@pytest.mark.parametrize("background", [False, True], ids=["in the foreground", "in the background"])
@pytest.mark.parametrize("reply", ["HANG", "STALL 2", "SLOW 1000 0.05"])
async def test_letta_closes_the_models_stream_in_every_state_of_it(
    world: LettaWorld, reply: str, background: bool
) -> None:
    """Letta alone, without LiteLLM, which would wait for a first word."""
    agent, text = await world.fresh(), f"{uuid.uuid4().hex} {reply}"
    stream = await world.client.as_member(agent.member_id).conversations.messages.create(
        agent.conversation_id,
        messages=[{"role": "user", "content": text}],
        streaming=True,
        stream_tokens=True,
        background=background,
    )
    reading = asyncio.create_task(_stop_reasons(stream))
    async with asyncio.timeout(TIMEOUT):
        while not any(text in seen.text for seen in world.script.seen):
            await asyncio.sleep(0.05)
        await world.gateway.cancel(agent, None)
        assert await reading == ["cancelled"]
        while world.asked(text).state == "running":
            await asyncio.sleep(0.05)
    assert world.asked(text).state == "gone"
    [run] = await world.gateway.runs_within(agent, 600)
    assert run.status == "cancelled"
    assert text_of(await world.say(agent, "ECHO after")) == "after"


async def _stop_reasons(stream: AsyncIterable[Any]) -> list[str]:
    return [chunk.stop_reason async for chunk in stream if getattr(chunk, "message_type", "") == "stop_reason"]
