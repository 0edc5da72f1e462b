"""The search in the history over REST: which queries are accepted, pages, and the way from a hit to its place."""

from typing import Any

import pytest

from tests.unit.api.world import Client, World

HISTORY = "/api/v1/chat/history"


async def _page(user: Client, **params: str) -> Any:
    answer = await user.get(HISTORY, params=params)
    assert answer.status == 200, answer.json
    return answer.json


def _texts(page: Any) -> list[str]:
    return [message["content"] for message in page["data"]]


async def _conversation(world: World, *texts: str) -> Client:
    user = await world.user()
    for text in texts:
        await user.say(text)
    return user


async def test_messages_and_replies_with_all_words_are_found_newest_first(world: World) -> None:
    user = await _conversation(world, "I like green tea", "Hello", "More tea?")
    replies = ["You said: More tea?", "You said: I like green tea"]
    assert _texts(await _page(user, query="TE")) == [replies[0], "More tea?", replies[1], "I like green tea"]
    assert _texts(await _page(user, query="said gre")) == ["You said: I like green tea"]
    nothing = await _page(user, query="coffee")
    assert nothing == {"data": [], "has_more": False, "next_cursor": None}


async def test_pages_of_hits_are_followed_like_those_of_the_history(world: World) -> None:
    user = await _conversation(world, "tea one", "milk", "tea two", "tea three")
    newest = await _page(user, query="tea", limit="4")
    older = await _page(user, query="tea", limit="4", before=newest["next_cursor"])
    assert _texts(newest) == ["You said: tea three", "tea three", "You said: tea two", "tea two"]
    assert _texts(older) == ["You said: tea one", "tea one"]
    assert (newest["has_more"], older["has_more"], older["next_cursor"]) == (True, False, None)
    newer = await _page(user, query="tea", limit="3", after=older["data"][-1]["cursor"])
    assert _texts(newer) == ["You said: tea two", "tea two", "You said: tea one"]


async def test_the_cursor_of_a_hit_leads_to_the_messages_around_it(world: World) -> None:
    user = await _conversation(world, *(f"message {number}" for number in range(6)), "needle", "last")
    whole = (await _page(user))["data"]
    [_, hit] = (await _page(user, query="needle"))["data"]
    assert hit in whole
    older = await _page(user, before=hit["cursor"], limit="3")
    newer = await _page(user, after=hit["cursor"], limit="2")
    around = [*newer["data"], hit, *older["data"]]
    place = whole.index(hit)
    assert around == whole[place - 2 : place + 4]
    assert (newer["has_more"], older["has_more"]) == (True, True)
    newest = await _page(user, after=newer["next_cursor"])
    assert [*newest["data"], *around] == whole[: place + 4]


async def test_hits_have_their_steps_if_asked(world: World) -> None:
    user = await _conversation(world, "tea")
    assert [message.get("steps") for message in (await _page(user, query="tea", include="steps"))["data"]] == [[], None]
    assert [message for message in (await _page(user, query="tea"))["data"] if "steps" in message] == []


@pytest.mark.parametrize("query", ["!?", "🙂", "%", "'", '"', " ", "\\", "&|!():*<->", "ж" * 200, "🙂" * 200])
async def test_a_query_that_fits_no_message_is_answered_with_an_empty_page(world: World, query: str) -> None:
    user = await _conversation(world, "tea")
    assert await _page(user, query=query) == {"data": [], "has_more": False, "next_cursor": None}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("query=", "invalid_request"),
        ("query=" + "x" * 201, "invalid_request"),
        ("query=%00", "invalid_request"),
        ("query=a%00", "invalid_request"),
        ("query=%ff", "invalid_request"),
        ("query=%ED%A0%80", "invalid_request"),
        ("query=a&query=b", "invalid_request"),
        ("query=a&before=cDI&after=cDI", "invalid_request"),
        ("query=a&before=1", "invalid_cursor"),
        ("query=a&limit=0", "invalid_request"),
    ],
)
async def test_invalid_queries_are_refused(world: World, query: str, code: str) -> None:
    answer = await (await world.user()).get(f"{HISTORY}?{query}")
    assert (answer.status, answer.code) == (400, code)


async def test_only_ones_own_messages_are_found(world: World) -> None:
    ann, ben = await _conversation(world, "tea of Ann"), await _conversation(world, "tea of Ben")
    assert _texts(await _page(ann, query="tea")) == ["You said: tea of Ann", "tea of Ann"]
    assert _texts(await _page(ben, query="ann")) == []


async def test_a_deleted_history_is_not_found(world: World) -> None:
    user = await _conversation(world, "tea")
    assert (await user.delete(HISTORY)).status == 204
    assert (await _page(user, query="tea"))["data"] == []
