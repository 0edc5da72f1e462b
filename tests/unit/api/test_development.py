"""Faults on purpose: only in development, and only for one's own reply."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from server.ports import AgentEvent, AgentHandle
from tests.fakes.agent import FakeAgentGateway, Turnstile
from tests.unit.api.world import Answer, Client, World

BREAK = "/api/v1/development/break-stream"


class WatchedGateway(FakeAgentGateway):
    """Its replies stop after the first word until `turnstile` opens. `recovered`: the runs whose records were read, as
    after a broken stream."""

    def __init__(self) -> None:
        self.turnstile = Turnstile()
        self.turnstile.allow()
        self.begun = asyncio.Event()
        self.recovered: list[str] = []
        self._words = 0
        super().__init__(pace=self._before_word)

    async def _before_word(self, seconds: float) -> None:
        self._words += 1
        if self._words == 2:
            self.begun.set()
        await self.turnstile(seconds)

    async def reply(self, agent: AgentHandle, run_id: str) -> list[AgentEvent]:
        self.recovered.append(run_id)
        return await super().reply(agent, run_id)


@pytest.fixture
def gateway() -> WatchedGateway:
    return WatchedGateway()


@pytest.fixture
async def playing(gateway: WatchedGateway) -> AsyncIterator[World]:
    async with World(environment="development", gateway=gateway).serving() as running:
        yield running


async def begun_reply(user: Client, gateway: WatchedGateway) -> "asyncio.Task[Answer]":
    """Send a message, and return when its reply has begun."""
    asking = asyncio.create_task(user.say("one two three"))
    await gateway.begun.wait()
    return asking


async def test_a_broken_stream_is_recovered_as_the_same_reply_of_one_run(
    playing: World, gateway: WatchedGateway
) -> None:
    ada = await playing.user()
    asking = await begun_reply(ada, gateway)
    assert (await ada.post(BREAK)).status == 204
    gateway.turnstile.open()
    turn = (await asking).json
    assert (turn["status"], turn["message"]["content"]) == ("completed", "You said: one two three")
    assert gateway.recovered == [run.id for run in gateway.sent]
    assert len(gateway.sent) == 1

    assert (await ada.post(BREAK)).code == "not_found"
    assert (await ada.say("again")).json["status"] == "completed"
    assert len(gateway.recovered) == 1


async def test_nobody_breaks_anothers_stream(playing: World, gateway: WatchedGateway) -> None:
    ada, ben = await playing.user(), await playing.user()
    asking = await begun_reply(ada, gateway)
    assert (await ben.post(BREAK)).code == "not_found"
    assert (await playing.visitor.post(BREAK)).code == "unauthorized"
    gateway.turnstile.open()
    assert (await asking).json["status"] == "completed"
    assert not gateway.recovered


async def test_in_production_there_is_no_such_endpoint(world: World) -> None:
    ada = await world.user()
    for client in (ada, world.visitor):
        answer = await client.post(BREAK)
        assert (answer.status, answer.code) == (404, "not_found")
        assert answer.json["detail"] == (await client.post("/api/v1/development/unknown")).json["detail"]


async def test_the_apis_documents_do_not_describe_it(playing: World) -> None:
    assert BREAK not in (await playing.visitor.get("/openapi.json")).json["paths"]
