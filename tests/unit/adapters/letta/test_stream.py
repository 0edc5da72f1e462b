"""Parsing streams recorded from Letta 0.16.8: the events do not depend on how the network splits the bytes."""

from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.adapters.letta.stream import StreamParser
from server.ports import (
    AgentEvent,
    ReasoningDelta,
    RunEnded,
    RunStarted,
    StreamBrokenError,
    TextDelta,
    ToolCalled,
    ToolReturned,
    UsageReported,
)
from server.protocol.codes import ErrorCode
from server.protocol.shapes import TurnStatus, Usage

RECORDINGS = Path(__file__).parent / "recordings"
ALL = sorted(path.stem for path in RECORDINGS.glob("*.sse"))


def recorded(name: str) -> bytes:
    return (RECORDINGS / f"{name}.sse").read_bytes()


def parse(data: bytes, cuts: tuple[int, ...] = ()) -> list[AgentEvent]:
    """The events of a body that is read in parts, from cut to cut."""
    parser = StreamParser()
    events: list[AgentEvent] = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in pairwise(edges):
        events += parser.feed(data[start:stop])
    return events + parser.end()


def joined(events: list[AgentEvent]) -> list[AgentEvent]:
    """The same with adjacent pieces of one message as one: equal however the body was read."""
    result: list[AgentEvent] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta) and last.message_id == event.message_id:
            result[-1] = TextDelta(event.message_id, last.text + event.text)
        else:
            result.append(event)
    return result


def text_of(events: list[AgentEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def end_of(events: list[AgentEvent]) -> RunEnded:
    last = events[-1]
    assert isinstance(last, RunEnded)
    return last


@given(name=st.sampled_from(ALL), cuts=st.lists(st.integers(0, 20_000), max_size=20))
def test_events_do_not_depend_on_how_the_bytes_are_split(name: str, cuts: list[int]) -> None:
    whole = parse(recorded(name))
    assert joined(parse(recorded(name), tuple(cuts))) == whole == joined(whole)


@pytest.mark.parametrize("name", ALL)
def test_a_run_starts_once_and_first_and_ends_once_and_last(name: str) -> None:
    events = parse(recorded(name))
    assert [type(event) for event in events].count(RunStarted) == 1
    assert [type(event) for event in events].count(RunEnded) == 1
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunEnded)


def test_the_run_is_known_from_the_first_ping() -> None:
    first_line = recorded("plain").split(b"\n\n")[0] + b"\n\n"
    assert b'"ping"' in first_line
    assert [type(event) for event in StreamParser().feed(first_line)] == [RunStarted]


def test_text_is_emitted_piece_by_piece_with_its_message_id() -> None:
    body = recorded("plain")
    events = parse(body, tuple(cut for cut, byte in enumerate(body, start=1) if byte == ord("\n")))
    pieces = [event for event in events if isinstance(event, TextDelta)]
    assert [piece.text for piece in pieces] == ["Hello,", " Wörld", " —", " one", " two."]
    assert len({piece.message_id for piece in pieces}) == 1
    assert end_of(events) == RunEnded(TurnStatus.COMPLETED)


def test_all_text_of_one_read_is_one_event() -> None:
    [text] = [event for event in StreamParser().feed(recorded("plain")) if isinstance(event, TextDelta)]
    assert text.text == "Hello, Wörld — one two."


def test_texts_of_two_messages_are_two_events_also_in_one_read() -> None:
    data = b"".join(
        b"data: " + orjson.dumps({"id": id_, "message_type": "assistant_message", "content": text}) + b"\n\n"
        for id_, text in (("m1", "One"), ("m1", "."), ("m2", "Two"))
    )
    assert StreamParser().feed(data) == [TextDelta("m1", "One."), TextDelta("m2", "Two")]


def test_usage_is_emitted_before_the_end() -> None:
    events = parse(recorded("reasoning"))
    (usage,) = [event.usage for event in events if isinstance(event, UsageReported)]
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert (usage.reasoning_tokens, usage.model_calls) == (5, 1)
    assert isinstance(events[-2], UsageReported)


def test_reasoning_is_not_text() -> None:
    events = parse(recorded("reasoning"))
    assert "".join(e.text for e in events if isinstance(e, ReasoningDelta)) == "thinking hard about it"
    assert text_of(events) == "the answer"


def test_a_tool_call_is_emitted_once_and_complete_before_its_return() -> None:
    events = parse(recorded("tool"))
    (called,) = [event for event in events if isinstance(event, ToolCalled)]
    (returned,) = [event for event in events if isinstance(event, ToolReturned)]
    assert (called.name, called.arguments) == (
        "memory_insert",
        '{"label": "human", "new_string": "Likes cats", "insert_line": 0}',
    )
    assert returned == ToolReturned(called.call_id, "memory_insert", "success", changed_memory=True)
    assert events.index(called) < events.index(returned)


def test_a_tool_call_is_emitted_once_its_arguments_are_complete() -> None:
    before_return = recorded("tool").split(b'"tool_return_message"')[0].rsplit(b"data: ", 1)[0]
    assert isinstance(StreamParser().feed(before_return)[-1], ToolCalled)


def test_a_changed_memory_block_is_detected() -> None:
    parser = StreamParser()
    parser.feed(recorded("plain"))
    assert not parser.edited_memory
    parser.feed(recorded("tool"))
    assert parser.edited_memory


def test_arguments_that_are_not_json_are_emitted_unchanged() -> None:
    called = next(event for event in parse(recorded("broken-arguments")) if isinstance(event, ToolCalled))
    assert called.arguments == '{"label": "hum'


def test_parallel_calls_are_emitted_in_order() -> None:
    events = parse(recorded("parallel-calls"))
    assert [event.arguments for event in events if isinstance(event, ToolCalled)] == [
        '{"content": "alpha"}',
        '{"content": "beta"}',
    ]


def test_every_return_of_a_message_has_the_id_and_name_of_its_call() -> None:
    events = parse(recorded("parallel-returns"))
    called = [event for event in events if isinstance(event, ToolCalled)]
    returned = [event for event in events if isinstance(event, ToolReturned)]
    assert [(call.call_id, call.name) for call in called] == [(one.call_id, one.name) for one in returned]
    assert [(one.name, one.status, one.changed_memory) for one in returned] == [
        ("memory_insert", "success", True),
        ("archival_memory_insert", "success", True),
        ("memory_insert", "error", False),
    ]


def piece(call_id: str | None, name: str | None = None, arguments: str | None = None) -> bytes:
    call = {"tool_call_id": call_id, "name": name, "arguments": arguments}
    return b"data: " + orjson.dumps({"message_type": "tool_call_message", "tool_call": call}) + b"\n\n"


def test_calls_with_interleaved_pieces_are_emitted_complete() -> None:
    parser = StreamParser()
    events = parser.feed(
        piece("a", "search")
        + piece("b", "insert")
        + piece("a", arguments='{"query": ')
        + piece("b", arguments='{"content": "beta"')
        + piece("a", arguments='"alpha"}')
        + piece("b", arguments="}")
    )
    assert events == [
        ToolCalled("a", "search", '{"query": "alpha"}'),
        ToolCalled("b", "insert", '{"content": "beta"}'),
    ]


def test_a_call_without_arguments_is_emitted_before_the_returns() -> None:
    returns = b'data: {"message_type":"tool_return_message","name":"first","status":"success","tool_call_id":"a"}\n\n'
    assert StreamParser().feed(piece("a", "first") + piece("b", "second", "{}") + returns) == [
        ToolCalled("b", "second", "{}"),
        ToolCalled("a", "first", "{}"),
        ToolReturned("a", "first", "success"),
    ]


def test_a_return_of_an_unknown_call_has_the_name_of_its_message() -> None:
    chunk = {
        "message_type": "tool_return_message",
        "name": "first",
        "tool_returns": [{"tool_call_id": "a", "status": "success"}, {"tool_call_id": "b", "status": "error"}],
    }
    assert StreamParser().feed(b"data: " + orjson.dumps(chunk) + b"\n\n") == [
        ToolReturned("a", "first", "success"),
        ToolReturned("b", "", "error"),
    ]


def test_text_before_and_after_tool_calls_belongs_to_separate_messages() -> None:
    pieces = [event for event in parse(recorded("text-and-tools")) if isinstance(event, TextDelta)]
    messages: dict[str, str] = {}
    for piece in pieces:
        messages[piece.message_id] = messages.get(piece.message_id, "") + piece.text
    assert list(messages.values()) == ["let me save that 0 ", "let me save that 1 ", "all done now twice "]


@pytest.mark.parametrize("name", ["empty", "reasoning-only", "memory-without-a-word"])
def test_a_run_without_text_completes_and_reports_its_tokens(name: str) -> None:
    events = parse(recorded(name))
    assert text_of(events) == ""
    assert isinstance(events[-2], UsageReported)
    assert end_of(events) == RunEnded(TurnStatus.COMPLETED)


def test_a_run_that_reached_its_step_limit_reports_it() -> None:
    ended = b'data: {"message_type":"stop_reason","stop_reason":"max_steps"}\n\n'
    assert end_of(parse(ended)) == RunEnded(TurnStatus.COMPLETED, step_limit=50)


@pytest.mark.parametrize("name", ["tool", "parallel-calls", "parallel-returns"])
def test_a_reply_that_consists_of_tool_calls_is_complete(name: str) -> None:
    events = parse(recorded(name))
    assert any(isinstance(event, ToolCalled) for event in events)
    assert end_of(events).status is TurnStatus.COMPLETED


@pytest.mark.parametrize(
    ("name", "code", "retryable"),
    [
        ("model-500", ErrorCode.MODEL_ERROR, True),
        ("model-dropped", ErrorCode.MODEL_ERROR, True),
        ("rate-limit", ErrorCode.RATE_LIMITED, True),
        ("rate-limit-second-step", ErrorCode.RATE_LIMITED, True),
        ("key-refused", ErrorCode.KEY_REFUSED, False),
        ("key-refused-second-step", ErrorCode.KEY_REFUSED, False),
        ("model-denied", ErrorCode.MODEL_ERROR, False),
        ("content-refused", ErrorCode.CONTENT_REFUSED, False),
        ("request-refused", ErrorCode.MODEL_ERROR, False),
        ("too-long", ErrorCode.MODEL_ERROR, False),
        ("budget", ErrorCode.BUDGET_EXCEEDED, True),
        ("budget-second-step", ErrorCode.BUDGET_EXCEEDED, True),
    ],
)
def test_a_failed_run_has_the_error_of_its_cause(name: str, code: ErrorCode, retryable: bool) -> None:
    end = end_of(parse(recorded(name)))
    assert end.status is TurnStatus.FAILED
    assert end.error is not None
    assert (end.error.code, end.error.retryable) == (code, retryable)


@pytest.mark.parametrize("name", ALL)
def test_a_request_that_the_model_refused_for_its_content_is_marked(name: str) -> None:
    assert end_of(parse(recorded(name))).refused is (name in ("content-refused", "request-refused", "too-long"))


def test_the_text_before_a_failure_is_kept() -> None:
    assert text_of(parse(recorded("model-dropped"))) == "w0 w1 w2"


def test_a_cancelled_run_keeps_its_text() -> None:
    events = parse(recorded("cancelled"))
    assert end_of(events) == RunEnded(TurnStatus.CANCELLED)
    assert text_of(events).startswith("w0 w1")


def test_text_after_the_stop_reason_still_comes_before_the_end() -> None:
    late = b'data: {"id":"m","message_type":"assistant_message","run_id":"r","content":" late"}\n\ndata: [DONE]\n\n'
    events = parse(recorded("cancelled") + late)
    assert text_of(events).endswith(" late")
    assert end_of(events) == RunEnded(TurnStatus.CANCELLED)


def test_a_cancelled_run_stays_cancelled_whatever_its_model_does_then() -> None:
    later = b'data: {"message_type":"stop_reason","stop_reason":"error"}\n\n' + recorded("model-500").split(b"\n\n")[2]
    assert end_of(parse(recorded("cancelled") + later + b"\n\n")) == RunEnded(TurnStatus.CANCELLED)


def test_a_body_that_ends_before_its_run_breaks_the_stream() -> None:
    parser = StreamParser()
    parser.feed(recorded("plain").split(b'data: {"message_type":"stop_reason"')[0])
    with pytest.raises(StreamBrokenError):
        parser.end()


def test_a_line_that_is_not_json_breaks_the_stream() -> None:
    with pytest.raises(StreamBrokenError):
        StreamParser().feed(b'data: {"message_type": "assista\n\n')


def test_an_exception_inside_letta_fails_the_run() -> None:
    start = recorded("plain").split(b"\n\n")[0]
    events = parse(start + b'\n\nevent: error\ndata: {"error":"boom","code":"INTERNAL_SERVER_ERROR"}\n\n')
    error = end_of(events).error
    assert error is not None
    assert "boom" not in error.message


def test_unknown_kinds_of_chunks_are_ignored() -> None:
    unknown = b'data: {"message_type":"something_new","run_id":"r"}\n\n'
    assert StreamParser().feed(unknown) == [RunStarted("r")]


def test_numbers_a_model_does_not_report_are_zero() -> None:
    chunk = b'data: {"message_type":"usage_statistics","total_tokens":3,"cached_input_tokens":null}\n\n'
    assert StreamParser().feed(chunk) == [UsageReported(Usage(total_tokens=3))]
