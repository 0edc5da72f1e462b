"""Reading an event stream."""

from collections.abc import AsyncIterator

import pytest

from ai_chat_client.errors import ChatError
from ai_chat_client.sse import close_code_of, events


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(*chunks: bytes) -> list[str]:
    return [data async for data in events(body(*chunks))]


async def test_events_are_read_however_the_bytes_are_cut() -> None:
    stream = 'id: e:1\nevent: x\ndata: {"a": "é😀"}\n\n: comment\n\ndata: two\r\n\r\n'.encode()
    for size in range(1, len(stream)):
        chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
        assert await read(*chunks) == ['{"a": "é😀"}', "two"]


async def test_separators_of_unicode_in_a_text_end_no_line() -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf"
    assert await read(f"data: {text}\n\n".encode()) == [text]


async def test_an_event_that_was_not_ended_is_none() -> None:
    assert await read(b"data: one\n\ndata: tw") == ["one"]


async def test_comments_are_signs_of_life() -> None:
    seen: list[None] = []
    assert [data async for data in events(body(b": 1\n\n", b": 2\n\n"), lambda: seen.append(None))] == []
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ChatError("token_expired", ""), 4001),
        (ChatError("rate_limited", "", retryable=True), 4004),
        (ChatError("unauthorized", ""), 4500),
        (ChatError("account_blocked", ""), 4503),
        (ChatError("network", "", retryable=True), 1006),
        (ChatError("supabase_unavailable", "", retryable=True), 1013),
        (ChatError("forbidden", ""), 4501),
    ],
)
def test_a_refused_stream_ends_as_a_socket_would(error: ChatError, code: int) -> None:
    assert close_code_of(error) == code
