"""Export of one's own data."""

import json

import aiohttp
import pytest

from tests.unit.api.world import World

EXPORT = "/api/v1/user/export"


async def test_a_user_downloads_everything_as_one_document(world: World) -> None:
    user, other = await world.user(), await world.user()
    await user.say("I like tea")
    await other.say("I like coffee")
    answer = await user.get(EXPORT)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="chat-export.json"'
    assert answer.json["complete"] is True
    assert answer.json["messages"][0]["content"] == "I like tea"
    assert b"coffee" not in answer.raw


async def test_a_failing_service_at_the_beginning_is_an_ordinary_error(world: World) -> None:
    user = await world.user()
    world.memory.down = True
    answer = await user.get(EXPORT)
    assert (answer.status, answer.code) == (503, "letta_unavailable")


async def test_a_failure_in_the_middle_breaks_the_connection(world: World) -> None:
    user = await world.user()
    world.memory.broken_file = True
    world.memory.remember(await world.provisioner.ready(user.user_id), *("x" * 5_000 for _ in range(30)))
    async with world.http.get(EXPORT, headers={"Authorization": f"Bearer {user.token}"}) as response:
        assert response.status == 200
        received = b""
        with pytest.raises(aiohttp.ClientPayloadError):
            received = await response.read()
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(received)


async def test_more_exports_in_a_minute_than_the_rate_are_refused() -> None:
    world = World(exports_per_minute=2)
    async with world.serving():
        user = await world.user()
        answers = [await user.get(EXPORT) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert (answers[2].code, answers[2].json["rate_limit"]) == ("rate_limited", "exports")
