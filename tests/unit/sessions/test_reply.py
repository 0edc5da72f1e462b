"""What a reply makes of an agent's events: the same text live, recovered, frozen or in pieces."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from server.ports import (
    AgentEvent,
    ReasoningDelta,
    RunEnded,
    RunStarted,
    TextDelta,
    ToolCalled,
    ToolReturned,
    UsageReported,
)
from server.protocol.limits import Limits
from server.protocol.shapes import TurnStatus, Usage
from server.protocol.text import clip
from server.sessions.events.log import EventLog
from server.sessions.turns.reply import Reply

DONE = RunEnded(TurnStatus.COMPLETED)


class Shown:
    """A reply and what a device sees of it."""

    def __init__(self) -> None:
        self.log = EventLog(Limits())
        self._reader = self.log.subscribe(None, lambda: None)
        self.reply = Reply(self.log, "t1", 1, 16)

    def feed(self, *events: AgentEvent) -> "Shown":
        for event in events:
            self.reply.feed(event)
        return self

    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(frame.data) for frame in self._reader.take()]

    def text(self) -> str:
        return "".join(event["text"] for event in self.events() if event["type"] == "message.delta")


def _said(*texts: str, message: str = "m1") -> list[AgentEvent]:
    return [TextDelta(message, text) for text in texts]


def test_text_is_shown_piece_by_piece_and_kept_whole() -> None:
    shown = Shown().feed(RunStarted("r1"), *_said("Hel", "lo"), DONE)
    assert (shown.reply.text, shown.text()) == ("Hello", "Hello")
    assert (shown.reply.run_id, shown.reply.ended) == ("r1", DONE)


def test_messages_of_one_turn_are_paragraphs_of_one_text() -> None:
    shown = Shown().feed(*_said("Let me look."), ToolCalled("c", "search", "{}"), *_said("Found it.", message="m2"))
    assert shown.text() == shown.reply.text == "Let me look.\n\nFound it."


def test_an_empty_first_piece_does_not_swallow_the_paragraph() -> None:
    shown = Shown().feed(*_said("One."), *_said("", "Two.", message="m2"))
    assert shown.reply.text == "One.\n\nTwo."


def test_empty_pieces_are_no_events() -> None:
    assert Shown().feed(*_said("", "")).events() == []


def test_long_reasoning_comes_whole_in_pieces_of_the_limit() -> None:
    events = Shown().feed(ReasoningDelta("я" * 20), ReasoningDelta("hm")).events()
    assert "".join(event["text"] for event in events) == "я" * 20 + "hm"


def test_no_piece_of_reasoning_is_longer_than_the_limit() -> None:
    shown = Shown().feed(ReasoningDelta("я" * 20))
    sizes = [len(orjson.loads(entry.data)["text"].encode()) for entry in shown.log.after(0)]
    assert sum(sizes) == 40
    assert max(sizes) <= 16


def test_tool_arguments_that_are_cut_say_so() -> None:
    shown = Shown().feed(ToolCalled("c1", "search", "ж" * 20), ToolCalled("c2", "search", "ж" * 8))
    cut, whole = shown.events()
    assert (cut["arguments"], cut["truncated"]) == ("ж" * 8, True)
    assert (whole["arguments"], whole["truncated"]) == ("ж" * 8, False)


def test_a_call_and_its_return_carry_the_same_id() -> None:
    called, returned = Shown().feed(ToolCalled("c1", "search", "{}"), ToolReturned("c1", "search", "error")).events()
    assert called["call_id"] == returned["call_id"] == "c1"
    assert (returned["name"], returned["status"]) == ("search", "error")


@given(text=st.text(), limit=st.integers(0, 40))
def test_clipping_keeps_a_prefix_within_the_limit(text: str, limit: int) -> None:
    clipped = clip(text, limit)
    assert text.startswith(clipped)
    assert len(clipped.encode()) <= limit
    if clipped != text:
        assert len(text[: len(clipped) + 1].encode()) > limit


pieces = st.lists(st.tuples(st.sampled_from(("m1", "m2", "m3")), st.text(max_size=6)), max_size=15)


@given(said=pieces, seen=st.integers(0, 15))
def test_a_recovered_reply_reads_as_one_that_never_broke(said: list[tuple[str, str]], seen: int) -> None:
    run: list[AgentEvent] = [TextDelta(message, text) for message, text in said]
    whole = Shown().feed(*run).reply.text
    broken = Shown().feed(*run[:seen])
    broken.reply.complete_from([*run, UsageReported(Usage(1, 2, 3)), DONE])
    assert broken.reply.text == broken.text() == whole
    assert (broken.reply.usage, broken.reply.ended) == (Usage(1, 2, 3), DONE)


def test_a_frozen_reply_shows_no_more_and_releases_what_it_kept_back() -> None:
    shown = Shown().feed(*_said("One "))
    shown.reply.freeze()
    shown.feed(*_said("two "), ReasoningDelta("hm"))
    assert shown.reply.text == shown.text() == "One "
    shown.reply.release()
    assert (shown.reply.text, shown.text()) == ("One two ", "two ")


def test_a_record_that_contradicts_the_stream_becomes_the_text() -> None:
    shown = Shown().feed(*_said("One "))
    shown.reply.complete_from([*_said("Another"), DONE])
    assert (shown.reply.text, shown.log.reply("t1", 1)) == ("Another", "One ")


def test_a_record_without_text_leaves_what_was_shown() -> None:
    shown = Shown().feed(*_said("One "))
    shown.reply.complete_from([RunEnded(TurnStatus.FAILED)])
    assert shown.reply.text == "One "


def test_a_reply_is_blank_until_an_event_of_its_run_arrives() -> None:
    assert Shown().feed(RunStarted("r1"), RunEnded(TurnStatus.FAILED)).reply.blank
    assert not Shown().feed(*_said("x")).reply.blank
    assert not Shown().feed(ToolCalled("c", "search", "{}")).reply.blank
