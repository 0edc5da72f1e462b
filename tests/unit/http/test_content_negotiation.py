"""Events, JSON or CSV by the Accept header, gzip by Accept-Encoding, and `respond-async` in the Prefer header."""

import pytest

from server.http.content_negotiation import accepts_gzip, prefers_csv, prefers_stream, wants_async


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
    ("accept", "csv"),
    [
        (None, False),
        ("*/*", False),
        ("text/csv", True),
        ("Text/CSV; charset=utf-8", True),
        ("text/csv, */*;q=0.1", True),
        ("text/csv, */*", True),
        ("text/*", True),
        ("application/json, text/csv", False),
        ("text/csv;q=0.9, application/json;q=0.8", True),
        ("text/csv;q=0.8, application/json;q=0.9", False),
        ("text/csv;q=0", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("image/png", False),
    ],
)
def test_json_unless_csv_is_preferred(accept: str | None, csv: bool) -> None:
    assert prefers_csv(accept) is csv


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
def test_respond_async_is_found_at_any_position(prefer: list[str], expected: bool) -> None:
    assert wants_async(prefer) is expected


@pytest.mark.parametrize(
    ("accepted", "gzip"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("br", False),
        ("*", True),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("gzip;q=nonsense", False),
    ],
)
def test_gzip_where_it_is_allowed(accepted: str | None, gzip: bool) -> None:
    assert accepts_gzip(accepted) is gzip
