"""Events or JSON, now or later: what the headers say."""

import pytest

from server.api.preferences import prefers_stream, wants_async


@pytest.mark.parametrize(
    ("accept", "stream"),
    [
        (None, True),
        ("", True),
        ("*/*", True),
        ("text/*", True),
        ("text/html", True),
        ("text/event-stream", True),
        ("application/json, text/event-stream", True),
        ("text/event-stream;q=0.4, application/json;q=0.5", False),
        ("application/json", False),
        ("Application/JSON; charset=utf-8", False),
        ("application/*", False),
        ("application/json, */*;q=0.1", False),
        ("application/json, */*", False),
        ("text/event-stream, */*", True),
        ("application/json;q=0, */*", True),
        ("application/json;q=nonsense", True),
        ("application/json;q=7", False),
    ],
)
def test_events_unless_json_is_preferred(accept: str | None, stream: bool) -> None:
    assert prefers_stream(accept) is stream


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [
        ([], False),
        (["respond-async"], True),
        (["Respond-Async; foo=bar, wait=10"], True),
        (["wait=10", "respond-async"], True),
        (["no-respond-async"], False),
    ],
)
def test_respond_async_is_found_wherever_it_stands(prefer: list[str], expected: bool) -> None:
    assert wants_async(prefer) is expected
