"""Charges across a kill of the API server: nothing is lost, and nothing is charged twice."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import aiohttp
import pytest

from tests.stack.bookkeeper import Book
from tests.stack.charges import Charged, Scene
from tests.stack.chat_client import register
from tests.stack.own_server import ServerProcess
from tests.stack.running_stack import RunningStack


@dataclass(frozen=True, slots=True)
class Survivors:
    """Two users after the server was killed: one turn was in mid-reply at the kill, the other had just ended."""

    resumed: Charged
    just_ended: Charged
    books: list[Book]


@pytest.fixture(scope="module")
async def survivors(
    stack: RunningStack, server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Survivors]:
    log = tmp_path_factory.mktemp("charges") / "server.log"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=180)) as http:
        with ServerProcess(server_env, log) as server:
            await server.ready()
            yield await _survivors(replace(stack, url=server.url, env=server_env), server, http)


async def _survivors(stack: RunningStack, server: ServerProcess, http: aiohttp.ClientSession) -> Survivors:
    ada, bob = await asyncio.gather(register(http, stack.url), register(http, stack.url))
    await asyncio.gather(ada.say("ECHO before"), bob.say("ECHO before"))
    gate = uuid.uuid4().hex
    async with ada.connect() as hers, bob.connect() as his:
        one, other = Scene(stack, http, ada, hers), Scene(stack, http, bob, his)
        running = await one.send("resumed", f"GATE {gate} 2 3")
        await hers.wait_for(lambda _: hers.text_of(running).split() == ["w0", "w1"])
        await other.say("just ended", "ECHO done")
        server.kill()  # a settlement begins a second after the end of a turn
    await server.restart()
    await stack.open_gate(http, gate)
    await ada.ended(running)
    books = await asyncio.gather(*(scene.keeper.settled(scene.user) for scene in (one, other)))
    return Survivors(await one.charged("resumed", books[0]), await other.charged("just ended", books[1]), books)


def test_a_turn_recovered_after_a_crash_is_charged_once(survivors: Survivors) -> None:
    resumed, book = survivors.resumed, survivors.books[0]
    assert book.wrong == []
    assert (resumed.turn["status"], resumed.turn["attempt"]) == ("completed", 1)
    assert (resumed.statuses, resumed.asked, resumed.turn["cost_status"]) == (["success"], 1, "settled")
    assert resumed.cost == resumed.calls[0].cost > 0
    assert resumed.calls[0].completion_tokens == 10


def test_a_turn_that_ended_as_the_server_died_is_settled_once_by_the_next_process(survivors: Survivors) -> None:
    done, book = survivors.just_ended, survivors.books[1]
    assert book.wrong == []
    assert (done.turn["status"], done.statuses, done.turn["cost_status"]) == ("completed", ["success"], "settled")
    assert done.cost == done.calls[0].cost > 0
    assert len(book.calls) == 2
