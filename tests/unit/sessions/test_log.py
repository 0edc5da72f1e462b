"""The event log and its readers: gapless, ordered, joined without loss, and nobody waits for anybody."""

import tracemalloc
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.cursors import EventCursor
from server.protocol.limits import Limits
from server.sessions.events.codec import Entry
from server.sessions.events.log import EventLog, LogTrimmedError

LIMITS = Limits()
KINDS = ("message.delta", "reasoning.delta", "tool.called", "turn.started")
Written = tuple[str, str, int, str]
event_lists = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from(("t1", "t2")), st.integers(1, 2), st.text(max_size=5)),
    max_size=40,
)


def _write(log: EventLog, written: list[Written]) -> None:
    for kind, turn_id, attempt, text in written:
        fields: dict[str, Any] = {"text": text} if kind.endswith("delta") else {}
        if kind == "tool.called":
            fields = {"call_id": text, "name": "search", "arguments": "{}", "truncated": False}
        log.append(kind, turn_id, attempt, **fields)


def _read(frames: list[Entry]) -> list[dict[str, Any]]:
    return [orjson.loads(frame.data) for frame in frames]


def _told(read: list[dict[str, Any]]) -> list[tuple[str, str, int, str]]:
    """What was read, with adjacent deltas of one kind, turn and attempt as one: equal however frames were joined."""
    told: list[tuple[str, str, int, str]] = []
    for event in read:
        key = (str(event["type"]), str(event["turn_id"]), int(event["attempt"]))
        if key[0].endswith("delta") and told and told[-1][:3] == key:
            told[-1] = (*key, told[-1][3] + event["text"])
        else:
            told.append((*key, event.get("text", "")))
    return told


def _nothing() -> None:
    return None


@given(written=event_lists, takes=st.lists(st.integers(0, 39), max_size=5))
def test_events_are_gapless_and_ordered_however_often_a_reader_reads(written: list[Written], takes: list[int]) -> None:
    log = EventLog(LIMITS)
    reader = log.subscribe(None, _nothing)
    read: list[dict[str, Any]] = []
    for index, one in enumerate(written):
        _write(log, [one])
        if index in takes:
            read += _read(reader.take())
    read += _read(reader.take())
    position = 0
    for event in read:
        assert event.get("first_seq", event["seq"]) == position + 1
        assert event["epoch"] == log.epoch
        position = event["seq"]
    assert position == len(written)


@given(written=event_lists)
def test_a_client_that_resumes_from_any_cursor_reads_what_one_that_never_dropped_did(written: list[Written]) -> None:
    log = EventLog(LIMITS)
    steady = log.subscribe(None, _nothing)
    one_by_one: list[dict[str, Any]] = []
    for event in written:
        _write(log, [event])
        one_by_one += _read(steady.take())
    for seq in range(len(written) + 1):
        resumed = log.subscribe(EventCursor(log.epoch, seq), _nothing)
        rest = _read(resumed.take())
        assert _told(one_by_one[:seq] + rest) == _told(one_by_one)
        assert resumed.cursor == log.cursor
        resumed.close()


def test_only_adjacent_deltas_of_one_kind_turn_and_attempt_are_joined() -> None:
    log = EventLog(LIMITS)
    reader = log.subscribe(None, _nothing)
    _write(log, [("message.delta", "t1", 1, "a"), ("message.delta", "t1", 1, "b"), ("message.delta", "t1", 2, "c")])
    _write(log, [("reasoning.delta", "t1", 2, "d"), ("message.delta", "t2", 2, "e"), ("turn.started", "t2", 2, "")])
    _write(log, [("message.delta", "t2", 2, "f"), ("message.delta", "t2", 2, "g")])
    frames = _read(reader.take())
    assert [(f.get("first_seq"), f["seq"], f.get("text")) for f in frames] == [
        (1, 2, "ab"),
        (None, 3, "c"),
        (None, 4, "d"),
        (None, 5, "e"),
        (None, 6, None),
        (7, 8, "fg"),
    ]


def test_a_joined_frame_has_every_field_of_a_single_one() -> None:
    log = EventLog(LIMITS)
    single, late = log.subscribe(None, _nothing), log.subscribe(None, _nothing)
    _write(log, [("message.delta", "t1", 1, "a")])
    [one] = _read(single.take())
    _write(log, [("message.delta", "t1", 1, "b")])
    [joined] = _read(late.take())
    assert set(joined) == set(one) | {"first_seq"}


def test_a_slow_reader_is_only_behind_and_never_delays_another() -> None:
    log = EventLog(LIMITS)
    log.subscribe(None, _nothing)
    quick = log.subscribe(None, _nothing)
    for number in range(1000):
        _write(log, [("message.delta", "t1", 1, "word ")])
        [event] = _read(quick.take())
        assert event["seq"] == number + 1


def test_a_reader_is_slow_once_it_had_caught_up_and_is_a_mebibyte_behind() -> None:
    log = EventLog(replace(LIMITS, slow_consumer_bytes=1000, log_bytes=10_000))
    reader = log.subscribe(None, _nothing)
    _write(log, [("message.delta", "t1", 1, "x" * 2000)])
    assert not reader.is_slow, "it has not caught up yet"
    reader.take()
    _write(log, [("message.delta", "t1", 1, "x" * 500)])
    assert not reader.is_slow
    _write(log, [("message.delta", "t1", 1, "x" * 500)])
    assert reader.is_slow


@pytest.mark.parametrize(
    "limits", [replace(LIMITS, log_events=10), replace(LIMITS, log_bytes=1500)], ids=["events", "bytes"]
)
def test_the_log_is_trimmed_to_the_newest_events(limits: Limits) -> None:
    log = EventLog(limits)
    left_behind = log.subscribe(None, _nothing)
    _write(log, [("message.delta", "t1", 1, "word")] * 100)
    assert log.head == 100
    assert 85 < log.oldest < 100
    assert log.holds(EventCursor(log.epoch, log.oldest))
    assert not log.holds(EventCursor(log.epoch, log.oldest - 1))
    assert not log.holds(EventCursor(log.epoch, 101)), "the future was not issued by this server"
    assert not log.holds(EventCursor("another", 100))
    with pytest.raises(LogTrimmedError):
        left_behind.take()


def test_an_event_takes_little_more_memory_than_its_bytes() -> None:
    log = EventLog(LIMITS)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        _write(log, [("message.delta", "t1", 1, "word")] * 1000)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used < 1000 * 1000 < 10 * log.appended_bytes


def test_one_event_larger_than_the_log_is_still_kept() -> None:
    log = EventLog(replace(LIMITS, log_bytes=100))
    reader = log.subscribe(None, _nothing)
    _write(log, [("message.delta", "t1", 1, "x" * 1000)])
    assert len(reader.take()) == 1


def test_a_cursor_that_is_not_held_reads_on_from_now() -> None:
    log = EventLog(LIMITS)
    _write(log, [("message.delta", "t1", 1, "a")])
    reader = log.subscribe(EventCursor("another", 0), _nothing)
    assert (reader.take(), reader.cursor) == ([], log.cursor)


def test_a_closed_reader_is_not_woken_and_closing_it_again_does_nothing() -> None:
    log = EventLog(LIMITS)
    woken: list[int] = []
    reader = log.subscribe(None, lambda: woken.append(1))
    reader.close()
    reader.close()
    _write(log, [("message.delta", "t1", 1, "a")])
    assert woken == []


def test_a_reader_that_leaves_while_it_is_woken_does_not_stop_the_others() -> None:
    log = EventLog(LIMITS)
    woken: list[str] = []
    leaving = log.subscribe(None, lambda: leaving.close())  # noqa: PLW0108 - it is only just being made
    log.subscribe(None, lambda: woken.append("second"))
    _write(log, [("message.delta", "t1", 1, "a")])
    assert woken == ["second"]


def test_times_are_utc_and_everything_of_a_turn_names_it() -> None:
    log = EventLog(LIMITS)
    reader = log.subscribe(None, _nothing)
    _write(log, [("turn.started", "t1", 3, "")])
    log.append("agent.status", status="active", reason=None)
    started, status = _read(reader.take())
    assert (started["turn_id"], started["attempt"]) == ("t1", 3)
    assert "turn_id" not in status
    assert started["at"].endswith("Z")
