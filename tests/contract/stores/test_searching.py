"""The search in the history: which messages are found, by which words, on which page."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from server.ports import MessagePage, Principal
from tests.contract.stores.chat import CANCELLED, COMPLETED, FAILED, Chat
from tests.contract.stores.worlds import World


async def page(
    chat: Chat, query: str, *, limit: int = 50, before: int | None = None, after: int | None = None
) -> MessagePage:
    user = Principal(chat.user_id, "", None, datetime.now(UTC) + timedelta(hours=1))
    return await chat.world.reads.search(user, query, limit, before=before, after=after)


async def found(chat: Chat, query: str) -> list[str]:
    return [message.content for message in (await page(chat, query)).data]


async def says(chat: Chat, *texts: str) -> None:
    """Messages whose replies are empty, so that only they have words."""
    for text in texts:
        await chat.ended(text, COMPLETED)


TEA, BEES, HELLO, AGAIN = "Is green TEA good?", "Green bees", "ПРИВЕТ, мир!", "Ещё раз: ёлка."
SUMMER, TOKYO, NUMBERS = "L'\u00e9t\u00e9 \u00e0 Paris", "東京 は雨", "3.14 is 12345678e5 or -7"
ADDRESSES = "Write to ada@example.com, see https://example.org/a_page-2?x=1"
BY_WORDS = {
    "green": [TEA, BEES],
    "GREEN te": [TEA],
    "good is": [TEA],
    "reen": [],
    "green coffee": [],
    "привет": [HELLO],
    "МИР прив": [HELLO],
    "еще": [AGAIN],
    "ЁЛК": [AGAIN],
    "l'été": [SUMMER],
    "e\u0301t": [SUMMER],
    "ada@exam": [ADDRESSES],
    "page 2": [ADDRESSES],
    "3": [NUMBERS],
    "123": [NUMBERS],
    "12345678e5": [NUMBERS],
    "-7": [NUMBERS],
    "東京": [TOKYO],
    "は": [TOKYO],
}


async def test_words_are_found_by_their_beginnings_in_any_case(chat: Chat) -> None:
    await says(chat, BEES, HELLO, AGAIN, SUMMER, TOKYO, NUMBERS, ADDRESSES, TEA)
    assert {query: await found(chat, query) for query in BY_WORDS} == BY_WORDS


async def test_a_query_without_a_word_finds_nothing(chat: Chat) -> None:
    await says(chat, "tea % _ ! ' \" \\ 🙂 & | <-> :*")
    for query in ("", " ", "\t\n", "%", "_", "!?.,;", "🙂", "'", '"', "\\", "\u0301", "&|!()<->:*", "' '"):
        result = await page(chat, query)
        assert (result.data, result.has_more) == ((), False), query


OPERATORS = ("tea | coffee", "!coffee", "tea & !milk", "(milk", "tea' | 'milk", "tea <-> milk", "tea:* | milk:*", "t_a")
SQL = ("'; drop table messages; --", "tea') or true --", "$1", "\\'milk\\'", "tea:ABCD", "*", "te\\% or tea")


async def test_operators_are_no_operators(chat: Chat) -> None:
    """Only the words count, and each query but the last ones has some that the message lacks."""
    await says(chat, "tea")
    for query in (*OPERATORS, *SQL):
        assert await found(chat, query) == [], query
    for query in ("te%", "%tea%", "tea:*", "'tea'", "tea & !te"):
        assert await found(chat, query) == ["tea"], query


async def test_pages_meet_without_gaps_or_repeats_in_both_directions(chat: Chat) -> None:
    for number in range(5):
        await chat.ended(f"tea {number}", COMPLETED, "milk" if number % 2 else "more tea")
    whole = await page(chat, "tea")
    assert (len(whole.data), whole.has_more) == (8, False)
    places = [message.position for message in whole.data]
    assert places == sorted(places, reverse=True)

    older = await page(chat, "tea", limit=3, before=places[2])
    assert ([message.position for message in older.data], older.has_more) == (places[3:6], True)
    last = await page(chat, "tea", limit=2, before=places[5])
    assert ([message.position for message in last.data], last.has_more) == (places[6:], False)
    newer = await page(chat, "tea", limit=3, after=places[5])
    assert ([message.position for message in newer.data], newer.has_more) == (places[2:5], True)
    newest = await page(chat, "tea", limit=2, after=places[2])
    assert ([message.position for message in newest.data], newest.has_more) == (places[:2], False)


async def test_what_the_history_shows_is_found_whatever_became_of_its_turn(chat: Chat) -> None:
    failed = await chat.ended("tea one", FAILED, "tea half")
    await chat.ended("tea two", CANCELLED, "tea cut")
    await chat.running("tea three")
    await chat.say("tea four")
    assert await found(chat, "tea") == ["tea four", "tea three", "tea cut", "tea two", "tea half", "tea one"]
    stored = (await page(chat, "half")).data[0]
    assert stored == failed.message


async def test_a_retried_turn_is_found_by_its_new_reply_alone(chat: Chat) -> None:
    turn = await chat.ended("hello", FAILED, "draft")
    again = await chat.again(turn)
    assert again.lease
    await chat.end(again.lease, again.turn, COMPLETED, "final")
    assert (await found(chat, "draft"), await found(chat, "final")) == ([], ["final"])


async def test_only_the_users_own_messages_are_found(world: World, chat: Chat) -> None:
    other = Chat(world, await world.sign_up())
    await says(chat, "mine tea")
    await says(other, "theirs tea")
    assert await found(chat, "tea") == ["mine tea"]
    assert await found(chat, "theirs") == []
    assert await found(chat, chat.user_id) == []
    assert await found(other, f"u{chat.user_id[:8]}tea") == []


async def test_a_deleted_history_is_not_found(chat: Chat) -> None:
    await says(chat, "tea")
    await chat.world.accounts.delete_history(chat.user_id, "conversation-2")
    assert await found(chat, "tea") == []
    await says(chat, "tea again")
    assert await found(chat, "tea") == ["tea again"]


MANY_LETTERS = [chr(code) for code in range(0x20000, 0x2A6DE)]
"""Each has four bytes in UTF-8."""


@pytest.mark.parametrize(
    "text",
    [
        " ".join(f"w{number:x}" for number in range(400_000)),
        "-".join(MANY_LETTERS),
        " ".join(first + second for first, second in pairwise(MANY_LETTERS * 3)),
        "/".join(f"a{number}.com" for number in range(100_000)),
        "x" * 3_000_000,
    ],
    ids=["words", "hyphens", "pairs", "addresses", "one word"],
)
async def test_a_message_of_megabytes_is_stored_and_found_by_its_beginning(chat: Chat, text: str) -> None:
    """A tsvector of all its words would exceed the limit of 1 MiB."""
    reply = f"Opening. {text} closing"
    done = await chat.ended("go", COMPLETED, reply)
    assert (await page(chat, "opening")).data == (done.message,)
    assert (await page(chat, "closing")).data == ()
    assert (await chat.ended("more", COMPLETED, "closing")).message
