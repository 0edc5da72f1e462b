"""Strict validation of clients' frames, and the server's frames on a connection."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol import frames
from server.protocol.codes import ERRORS, ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.frames import (
    AnyClientFrame,
    CancelFrame,
    MessageFrame,
    PingFrame,
    ack_frame,
    error_frame,
    parse_client_frame,
    pong_frame,
    ready_frame,
    terminal_frame,
)
from server.protocol.limits import Limits
from server.protocol.shapes import Message, Turn, TurnError, TurnStatus, exact_money, total_of, wire_money, wire_time

MOST = 64 * 1024
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def _parse(**fields: Any) -> Any:
    return parse_client_frame(orjson.dumps(fields).decode(), MOST)


def _turn(status: TurnStatus, error: TurnError | None = None) -> Turn:
    said = Message("msg", "t1", "user", "hello", "complete", None, None, NOON, 2)
    return Turn(
        "t1", status, 1, "m1", said, None, None, Decimal("0.0000001"), None, error, None, NOON, NOON, None, "u1", 1
    )


def test_a_message_is_enqueued_by_default() -> None:
    frame = _parse(type="message", client_message_id="m1", content=" hello\n")
    assert frame == MessageFrame(type="message", client_message_id="m1", content=" hello\n", on_busy="enqueue")


@pytest.mark.parametrize("content", ["\u200b", " \n\t", "\ufeff\u2060", "\u3164", "\u2800 \ufe0f"])
def test_a_message_without_visible_characters_is_refused(content: str) -> None:
    with pytest.raises(PlatformError) as refused:
        _parse(type="message", client_message_id="m1", content=content)
    assert (refused.value.code, refused.value.id) == (ErrorCode.INVALID_REQUEST, "m1")


def test_the_other_frames_have_few_required_fields() -> None:
    assert _parse(type="ping") == PingFrame(type="ping")
    assert _parse(type="cancel") == CancelFrame(type="cancel")


def test_a_token_is_not_in_the_repr_of_its_frame() -> None:
    assert "hunter2" not in repr(_parse(type="auth", token="hunter2"))


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with pytest.raises(PlatformError) as refusal:
        parse_client_frame(text, MOST)
    assert refusal.value.code in (ErrorCode.INVALID_REQUEST, ErrorCode.TOO_LARGE)


@given(
    st.dictionaries(
        st.sampled_from(("type", "id", "client_message_id", "content", "on_busy", "turn_id", "token", "more")),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-9, 9),
            st.text(max_size=5),
            st.sampled_from(("message", "cancel", "ping")),
        ),
    )
)
def test_any_object_is_parsed_or_refused_with_its_id(fields: dict[str, Any]) -> None:
    text = orjson.dumps(fields).decode()
    outcome = _outcome(text)
    if isinstance(outcome, PlatformError):
        assert outcome.code is ErrorCode.INVALID_REQUEST
        assert outcome.id in (None, fields.get("id"), fields.get("client_message_id"))
        assert orjson.loads(error_frame(outcome))["type"] == "error"
    else:
        assert outcome.type == fields["type"]


def _outcome(text: str) -> AnyClientFrame | PlatformError:
    try:
        return parse_client_frame(text, MOST)
    except PlatformError as error:
        return error


def test_sizes_are_counted_in_bytes() -> None:
    frame = orjson.dumps({"type": "message", "client_message_id": "m1", "content": "я" * 40}).decode()
    parse_client_frame(frame, len(frame.encode()))
    with pytest.raises(PlatformError) as refusal:
        parse_client_frame(frame, len(frame.encode()) - 1)
    assert refusal.value.code is ErrorCode.TOO_LARGE


@pytest.mark.parametrize("service", ["letta", "litellm", "supabase"])
def test_the_error_of_an_unavailable_service_says_when_to_repeat_the_request(service: str) -> None:
    code = ErrorCode(f"{service}_unavailable")
    assert orjson.loads(error_frame(PlatformError(code)))["retry_after"] == 5
    assert orjson.loads(error_frame(PlatformError(code, retry_after=60)))["retry_after"] == 60


def test_an_error_has_its_code_and_its_retry_after() -> None:
    frame = orjson.loads(error_frame(PlatformError(ErrorCode.OVERLOADED, retry_after=0.2), "m1"))
    assert frame == {
        "type": "error",
        "id": "m1",
        "code": "overloaded",
        "message": ERRORS[ErrorCode.OVERLOADED].sentence,
        "retryable": True,
        "retry_after": 1,
    }


def test_acks_and_pongs_echo_the_id() -> None:
    ack = orjson.loads(ack_frame("m1", turn_id="t", message_id="msg", queue_position=2, duplicate=True))
    assert ack == {
        "type": "ack",
        "id": "m1",
        "turn_id": "t",
        "message_id": "msg",
        "queue_position": 2,
        "duplicate": True,
    }
    assert orjson.loads(pong_frame("p")) == {"type": "pong", "id": "p"}
    assert orjson.loads(pong_frame(None)) == {"type": "pong"}


@pytest.mark.parametrize(("resumed", "turn"), [(True, None), (False, {"turn_id": "t1"})])
def test_a_resumed_client_gets_no_running_turn(resumed: bool, turn: Any) -> None:
    frame = orjson.loads(
        ready_frame(
            cursor=EventCursor("e", 3),
            resumed=resumed,
            user_id="u",
            limits=Limits(),
            turn={"turn_id": "t1"},
            queued=[],
        )
    )
    assert (frame["cursor"], frame["resumed"], frame["turn"]) == ("e:3", resumed, turn)


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (TurnStatus.COMPLETED, "turn.completed"),
        (TurnStatus.FAILED, "turn.failed"),
        (TurnStatus.CANCELLED, "turn.cancelled"),
        (TurnStatus.UNSENT, "turn.failed"),
    ],
)
def test_an_end_sent_late_is_the_terminal_event_without_a_sequence_number(status: TurnStatus, type_: str) -> None:
    frame = orjson.loads(terminal_frame(_turn(status)))
    assert (frame["type"], frame["turn_id"], frame["attempt"], frame["turn"]["status"]) == (type_, "t1", 1, status)
    assert not {"seq", "epoch"} & set(frame)


def test_money_is_never_in_scientific_notation_and_times_are_utc() -> None:
    assert _turn(TurnStatus.COMPLETED).wire()["cost"] == "0.0000001"
    assert (wire_money(None), wire_money(Decimal("1E+2"))) == (None, "100")
    assert wire_time(NOON) == "2030-01-01T12:00:00Z"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0.06360000000000001", "0.0636"),
        ("0.0318", "0.0318"),
        ("0.000450", "0.00045"),
        ("10.00", "10"),
        ("0", "0"),
        ("0E-20", "0"),
        ("-0.0", "0"),
        ("7.5E-8", "0.000000075"),
        ("0.0000000000005", "0.000000000001"),
        ("0.00000000000049", "0.00000000000049"),
        ("1E-30", "0." + "0" * 29 + "1"),
        ("0.9999999999999", "1"),
        ("123456789012345678901234567890.1234567890123", "123456789012345678901234567890.123456789012"),
        ("1E+300", "1" + "0" * 300),
    ],
)
def test_money_has_at_most_twelve_decimals_and_no_trailing_zeros(amount: str, text: str) -> None:
    assert wire_money(Decimal(amount)) == text


def test_a_messages_cost_keeps_its_six_digits() -> None:
    said = Message("msg", "t1", "assistant", "hello", "complete", 3, Decimal("0.127140"), NOON, 2)
    assert said.wire()["cost"] == "0.127140"


def test_stored_amounts_keep_every_digit() -> None:
    assert exact_money(Decimal("0.06360000000000001")) == "0.06360000000000001"
    assert exact_money(Decimal("7.5E-20")) == "0.000000000000000000075"
    many = [Decimal("1000000.000000000000000000000001"), Decimal("1E-30"), Decimal("2E+40")]
    assert total_of(many) == Decimal("20000000000000000000000000000000001000000.000000000000000000000001000001")


def test_messages_are_validated_by_the_length_in_the_ready_frame() -> None:
    with pytest.raises(TypeError):
        Limits(content_characters=5)  # type: ignore[call-arg]
    longest = int(Limits().wire()["content_characters"])
    message = {"type": "message", "client_message_id": "m1"}
    assert parse_client_frame(orjson.dumps({**message, "content": "x" * longest}).decode(), 1_000_000)
    with pytest.raises(PlatformError, match="too_large"):
        parse_client_frame(orjson.dumps({**message, "content": "x" * (longest + 1)}).decode(), 1_000_000)


@pytest.mark.parametrize(
    "content",
    ['"\\ud800"', '"a\\udc00b"', '"\\ud83d\\ud83d\\ude00"', "NaN", "-Infinity", "1" * 400, "1e999"],
)
@pytest.mark.parametrize("named", ['"id":"i7"', '"client_message_id":"i7"', '"client_message_id":"m1","id":"i7"'])
def test_json_that_only_a_lenient_parser_accepts_is_refused_with_its_id(content: str, named: str) -> None:
    for text in (f'{{"type":"message",{named},"content":{content}}}', f'{{"content":{content},{named},"type":"ping"}}'):
        with pytest.raises(PlatformError) as refusal:
            parse_client_frame(text, MOST)
        assert (refusal.value.code, refusal.value.id) == (ErrorCode.INVALID_REQUEST, "i7")


@pytest.mark.parametrize("own_id", ["\\ud800", "a\\ud800b", "a\\u0000", "a\\nb", "\\u001b[31m", "x" * 129])
def test_an_invalid_id_is_not_in_the_answer(own_id: str) -> None:
    with pytest.raises(PlatformError) as refusal:
        parse_client_frame(f'{{"type":"ping","id":"{own_id}"}}', MOST)
    assert "id" not in orjson.loads(error_frame(refusal.value))


def test_a_frame_of_too_many_unknown_fields_is_refused_before_it_is_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_CLIENT_FRAME", None)
    fields = {"type": "ping", "id": "i7"} | {f"f{number}": 1 for number in range(5000)}
    with pytest.raises(PlatformError) as refusal:
        _parse(**fields)
    assert (refusal.value.code, refusal.value.id) == (ErrorCode.INVALID_REQUEST, "i7")
    assert [error.pointer for error in refusal.value.errors] == [f"/f{number}" for number in range(20)]


def test_an_unknown_type_is_not_quoted() -> None:
    with pytest.raises(PlatformError) as refusal:
        parse_client_frame('{"type":"hush7me","id":"i8"}', MOST)
    assert "hush7me" not in error_frame(refusal.value).decode()
    assert [error.pointer for error in refusal.value.errors] == ["/type"]
