"""The search in the history: what is asked as the service role, what as the user, and in whose slots."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from server.adapters.supabase.client import CONCURRENT_CALLS, CONCURRENT_SEARCHES, SupabaseClient
from server.adapters.supabase.reads import SupabaseReads
from server.ports import MessagePage, Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.unit.adapters.supabase.project import ANON, SERVICE, Project

SEARCH, MESSAGES, CALL = "/rest/v1/rpc/search_messages", "/rest/v1/messages", "/rest/v1/rpc/work"
ANN = Principal("ann", "ann@example.com", SecretStr("a.b.c"), datetime(2030, 1, 1, tzinfo=UTC))


def row(position: int) -> dict[str, Any]:
    message = {"id": str(position), "turn_id": "turn", "role": "user", "content": "tea", "status": "complete"}
    return message | {"tokens_used": None, "cost": None, "created_at": "2026-11-26T18:03:02Z", "position": position}


async def search(client: SupabaseClient, limit: int = 2) -> MessagePage:
    return await SupabaseReads(client).search(ANN, "tea", limit, before=9, after=None)


async def test_positions_are_asked_for_and_the_messages_are_read_as_the_user(
    project: Project, client: SupabaseClient
) -> None:
    asked = []

    async def positions(request: web.BaseRequest) -> list[int]:
        asked.append(json.loads(await request.read()))
        return [8, 5, 2]

    project.answers = {SEARCH: (200, positions), MESSAGES: (200, [row(8), row(5)])}

    page = await search(client)

    assert ([message.position for message in page.data], page.has_more) == ([8, 5], True)
    assert asked == [{"p_user_id": "ann", "p_query": "tea", "p_before": 9, "p_after": None, "p_limit": 3}]
    first, second = project.seen
    assert (first.headers["apikey"], second.headers["apikey"]) == (SERVICE, ANON)
    assert second.headers["Authorization"] == "Bearer a.b.c"
    assert (second.query["position"], second.query["user_id"]) == ("in.(8,5)", "eq.ann")


async def test_nothing_is_read_where_nothing_was_found(project: Project, client: SupabaseClient) -> None:
    project.answers = {SEARCH: (200, [])}
    page = await search(client)
    assert (page.data, page.has_more) == ((), False)
    assert project.requests(MESSAGES) == 0


async def test_a_history_that_was_deleted_in_between_is_the_last_page(project: Project, client: SupabaseClient) -> None:
    project.answers = {SEARCH: (200, [8, 5, 2]), MESSAGES: (200, [])}
    page = await search(client)
    assert (page.data, page.has_more) == ((), False)


async def test_searches_that_fail_prevent_no_other_call(project: Project, client: SupabaseClient) -> None:
    """A user can make a search slow, by a long history and by its words. It is not tried a second time."""
    cancelled = {"code": "57014", "message": "canceling statement due to statement timeout"}
    project.answers = {SEARCH: (500, cancelled), MESSAGES: (200, [row(8)]), CALL: (200, True)}
    tries = 2 * client.guard.breaker.threshold

    for _ in range(tries):
        with pytest.raises(PlatformError) as caught:
            await search(client)
        assert caught.value.code is ErrorCode.SUPABASE_UNAVAILABLE

    assert await client.call("work") is True
    page = await SupabaseReads(client).history(ANN, 2, before=None, after=None)
    assert [message.position for message in page.data] == [8]
    assert project.requests(SEARCH) < tries, "after some of them, searches are refused at once"


async def test_slow_searches_delay_no_turn(project: Project) -> None:
    """Nor another read: they wait for one another in slots of their own."""
    client = SupabaseClient(project.url, SecretStr(ANON), SecretStr(SERVICE))
    slots_are_taken, answered = asyncio.Event(), asyncio.Event()

    async def slowly(_: web.BaseRequest) -> list[int]:
        if project.requests(SEARCH) == CONCURRENT_SEARCHES:
            slots_are_taken.set()
        await answered.wait()
        return []

    project.answers = {SEARCH: (200, slowly), MESSAGES: (200, []), CALL: (200, True)}
    try:
        async with asyncio.timeout(30), asyncio.TaskGroup() as searches:
            for _ in range(CONCURRENT_CALLS):
                searches.create_task(search(client))
            await slots_are_taken.wait()
            assert await client.call("work") is True
            assert await SupabaseReads(client).history(ANN, 2, before=None, after=None) == MessagePage(
                (), has_more=False
            )
            assert project.requests(SEARCH) == CONCURRENT_SEARCHES
            answered.set()
    finally:
        await client.aclose()
