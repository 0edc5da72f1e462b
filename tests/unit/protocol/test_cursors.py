"""Cursors are parsed back unchanged, and any other text is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.codes import ErrorCode
from server.protocol.cursors import EventCursor, decode_history_cursor, encode_history_cursor
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.sessions.events.log import EventLog

positions = st.integers(1, 10**18 - 1)


@given(seq=st.integers(0, 10**18 - 1))
def test_an_event_cursor_is_parsed_back_unchanged(seq: int) -> None:
    cursor = EventCursor(EventLog(Limits()).epoch, seq)
    assert EventCursor.parse(str(cursor)) == cursor


@given(position=positions)
def test_a_history_cursor_is_decoded_unchanged(position: int) -> None:
    assert decode_history_cursor(encode_history_cursor(position)) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "e:",
        ":1",
        "e:-1",
        "e:01",
        "e:1.0",
        "e:1 ",
        " e:1",
        "e:1\n",
        "e e:1",
        "e:٣",
        "é:1",
        "e:" + "9" * 19,
        "e:1:",
        "e:1:2:3",
        "e:1:é",
        "e:1:" + "x" * 65,
    ],
)
def test_any_other_text_is_not_an_event_cursor(text: str) -> None:
    with pytest.raises(PlatformError) as refusal:
        EventCursor.parse(text)
    assert refusal.value.code is ErrorCode.INVALID_CURSOR


@given(text=st.text(max_size=30))
def test_any_text_is_an_event_cursor_or_refused(text: str) -> None:
    with suppress(PlatformError):
        assert encode_history_cursor(decode_history_cursor(text)) == text


@pytest.mark.parametrize("text", ["eq.1", "1' or '1'='1", "position.gt.0", "*", "cDE=", "cDAx", "../..", "%00"])
def test_tampered_text_is_not_a_history_cursor(text: str) -> None:
    with pytest.raises(PlatformError):
        decode_history_cursor(text)


def test_a_cursor_with_a_proof_is_the_same_position() -> None:
    cursor = EventCursor.parse("e:1:pr-00_f")
    assert (cursor, cursor.proof, str(cursor)) == (EventCursor("e", 1), "pr-00_f", "e:1")
    assert EventCursor.parse("e:1").proof is None
