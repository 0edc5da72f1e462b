"""What a reply keeps beside its text: its reasoning and tool calls, in their order, within their limit."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from server.ports import AgentEvent, ReasoningDelta, TextDelta, ToolCalled, ToolReturned
from server.protocol.limits import Limits
from server.protocol.shapes import Json
from server.sessions.events.log import EventLog
from server.sessions.events.steps import part_of, steps_of, text_of
from server.sessions.turns.reply import Reply

CALL: Json = {"call_id": "c1", "name": "search", "arguments": "{}", "truncated": False}
RETURN: Json = {"call_id": "c1", "name": "search", "status": "success"}
RUN: list[AgentEvent] = [
    ReasoningDelta("Let me "),
    ReasoningDelta("think."),
    ToolCalled("c1", "search", "{}"),
    ToolReturned("c1", "search", "success"),
    ReasoningDelta("Found."),
    TextDelta("m1", "Here it is."),
]
STEPS: tuple[Json, ...] = (
    {"type": "reasoning.delta", "text": "Let me think."},
    {"type": "tool.called", **CALL},
    {"type": "tool.returned", **RETURN},
    {"type": "reasoning.delta", "text": "Found."},
)

texts = st.text(
    st.characters(exclude_characters="\0", categories=("L", "N", "P", "S", "Z", "M", "Cc", "Cf")), max_size=8
)
deltas = st.tuples(st.sampled_from(("message.delta", "reasoning.delta")), texts.map(lambda text: {"text": text}))
calls = st.tuples(st.just("tool.called"), texts.map(lambda text: {**CALL, "call_id": text, "arguments": text}))
returns = st.tuples(st.just("tool.returned"), texts.map(lambda text: {**RETURN, "call_id": text}))
replies = st.lists(st.one_of(deltas, calls, returns), max_size=20)


def _kept(*events: tuple[str, dict[str, Any]]) -> str:
    return "".join(part_of(type_, fields) or "" for type_, fields in events)


def _reply(*events: AgentEvent) -> Reply:
    reply = Reply(EventLog(Limits()), "t1", 1, Limits().event_text_bytes)
    for event in events:
        reply.feed(event)
    return reply


def test_steps_are_events_in_their_order_with_adjacent_reasoning_joined() -> None:
    reply = _reply(*RUN)
    assert (reply.text, reply.steps) == ("Here it is.", STEPS)


def test_the_log_keeps_for_those_who_join_what_the_reply_keeps() -> None:
    reply = _reply(*RUN)
    kept = reply.log.reply("t1", 1)
    assert (text_of(kept), steps_of(kept)) == (reply.text, reply.steps)


def test_reasoning_is_not_joined_across_text() -> None:
    kept = _kept(*((kind, {"text": kind}) for kind in ("reasoning.delta", "message.delta", "reasoning.delta")))
    assert [step["text"] for step in steps_of(kept)] == ["reasoning.delta"] * 2


def test_other_events_are_no_part_of_a_reply() -> None:
    assert part_of("turn.started", {"user_message": {}}) is None


@given(replies)
def test_text_and_steps_are_read_back_whatever_they_contain(events: list[tuple[str, dict[str, Any]]]) -> None:
    kept = _kept(*events)
    assert text_of(kept) == "".join(fields["text"] for type_, fields in events if type_ == "message.delta")
    steps = steps_of(kept)
    said = "".join(fields["text"] for type_, fields in events if type_ == "reasoning.delta")
    assert "".join(step["text"] for step in steps if step["type"] == "reasoning.delta") == said
    assert [step for step in steps if step["type"] == "tool.called"] == [
        {"type": type_, **fields} for type_, fields in events if type_ == "tool.called"
    ]


@given(replies, st.integers(0, 600))
def test_no_more_is_kept_than_the_limit_and_a_cut_is_marked(
    events: list[tuple[str, dict[str, Any]]], limit: int
) -> None:
    whole, steps = steps_of(_kept(*events)), steps_of(_kept(*events), limit)
    said, unlimited = ([step for step in some if step["type"] != "tool.returned"] for some in (steps, whole))
    assert sum(len(str(step.get("text", step.get("arguments"))).encode()) for step in said) <= limit
    is_cut = said != unlimited
    marks = [bool(step.get("truncated")) for step in said]
    assert marks == [False] * (len(said) - is_cut) + [True] * is_cut
    assert said[: len(said) - is_cut] == unlimited[: len(said) - is_cut]


def test_the_step_at_the_limit_is_cut_between_characters_and_later_ones_are_left_out() -> None:
    kept = _kept(("reasoning.delta", {"text": "я" * 100}), ("tool.called", CALL), ("tool.returned", RETURN))
    [cut] = steps_of(kept, 200)
    assert cut["truncated"]
    assert 0 < len(cut["text"]) < 100
    assert cut["text"] == "я" * len(cut["text"])


def test_the_return_of_a_call_that_is_kept_is_kept_after_the_limit() -> None:
    long = {"text": "long " * 100}
    kept = _kept(("tool.called", CALL), ("reasoning.delta", long), ("tool.returned", RETURN), ("reasoning.delta", long))
    assert [step["type"] for step in steps_of(kept, 300)] == ["tool.called", "reasoning.delta", "tool.returned"]


def test_arguments_that_an_event_cuts_are_stored_as_they_were_sent() -> None:
    [call] = _reply(ToolCalled("c1", "write", "x" * 20_000)).steps
    assert (len(call["arguments"]), call["truncated"]) == (16 * 1024, True)


def test_what_no_database_stores_is_in_no_step() -> None:
    reply = _reply(ReasoningDelta("a\0b\ud83d"), ToolCalled("c\0", "s\0", '{"a": "\0\udc00"}'))
    assert "\0" not in "".join(str(step) for step in reply.steps)
    assert orjson.dumps(reply.steps)


def test_steps_after_the_request_to_stop_are_kept_only_if_the_run_had_completed() -> None:
    reply = _reply(*RUN[:3])
    reply.freeze()
    for event in RUN[3:]:
        reply.feed(event)
    assert reply.steps == STEPS[:2]
    reply.release()
    assert (reply.text, reply.steps) == ("Here it is.", STEPS)


def test_steps_that_were_missed_are_taken_from_the_record_of_the_run() -> None:
    reply = _reply(*RUN[:2])
    reply.complete_from(RUN)
    assert (reply.text, reply.steps) == ("Here it is.", STEPS)


def test_of_a_reply_that_was_stopped_the_record_adds_no_steps() -> None:
    reply = _reply(*RUN[:2])
    reply.freeze()
    reply.complete_from(RUN)
    assert reply.steps == STEPS[:1]


def test_a_record_without_steps_leaves_those_that_were_seen() -> None:
    reply = _reply(*RUN[:4])
    reply.complete_from([TextDelta("m1", "Here it is.")])
    assert (reply.text, reply.steps) == ("Here it is.", STEPS[:3])
