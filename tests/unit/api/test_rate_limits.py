"""Rates of a user's requests: which limit refuses, until when, and whom it does not concern."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.unit.api.world import Client, World


@asynccontextmanager
async def limited(requests: int = 0, memory: int = 0, searches: int = 0) -> AsyncIterator[World]:
    world = World(requests_per_minute=requests, memory_requests_per_minute=memory, searches_per_minute=searches)
    async with world.serving() as serving:
        yield serving


async def test_a_user_over_the_rate_is_told_the_limit_and_when_there_is_room_again() -> None:
    async with limited(requests=3) as world:
        ann, ben = await world.user(), await world.user()
        assert [(await ann.get("/api/v1/user/profile")).status for _ in range(4)] == [200, 200, 200, 429]
        refused = await ann.get("/api/v1/chat/history")
        assert (refused.code, refused.json["rate_limit"], refused.json["retry_after"]) == (
            "rate_limited",
            "requests",
            20,
        )
        assert refused.headers["Retry-After"] == "20"
        assert refused.json["retry_at"] > world.now().isoformat()
        assert (await ben.get("/api/v1/user/profile")).status == 200
        world.seconds += 20
        assert (await ann.get("/api/v1/user/profile")).status == 200


async def test_a_refused_token_counts_for_nobody() -> None:
    async with limited(requests=2) as world:
        ann = await world.user()
        stranger = Client(world.http, "made up")
        assert {(await stranger.get("/api/v1/user/profile")).status for _ in range(5)} == {401}
        assert (await ann.get("/api/v1/user/profile")).status == 200


@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_the_memory_has_a_rate_of_its_own(method: str) -> None:
    async with limited(memory=2) as world:
        ann = await world.user()
        path = "/api/v1/agent/memory" if method == "GET" else "/api/v1/agent/memory/human"
        answers = [await ann.request(method, path, json={"value": "A fact"}) for _ in range(3)]
        assert answers[2].json["rate_limit"] == "memory_requests"
        assert [one.status == 429 for one in answers] == [False, False, True]
        assert (await ann.get("/api/v1/user/profile")).status == 200


async def test_searches_have_a_rate_that_reading_the_history_does_not_use() -> None:
    async with limited(searches=2) as world:
        ann, ben = await world.user(), await world.user()
        search = "/api/v1/chat/history?query=tea"
        assert [(await ann.get("/api/v1/chat/history")).status for _ in range(3)] == [200, 200, 200]
        answers = [await ann.get(search) for _ in range(3)]
        assert [one.status for one in answers] == [200, 200, 429]
        assert answers[2].json["rate_limit"] == "searches"
        assert (await ann.get("/api/v1/chat/history")).status == 200
        assert (await ben.get(search)).status == 200


async def test_an_event_stream_counts_as_a_request() -> None:
    async with limited(requests=2) as world:
        ann = await world.user()
        ticket = (await ann.post("/api/v1/chat/ticket")).json["ticket"]
        assert (await ann.get("/api/v1/user/profile")).status == 200
        assert (await world.visitor.get(f"/api/v1/chat/events?ticket={ticket}")).status == 429
