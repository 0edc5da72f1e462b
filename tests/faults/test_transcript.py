"""The transcript reports gaps, repeated and lost text, and second ends. Frames are made by hand."""

from typing import Any

import pytest

from tests.faults.transcript import Json, Transcript


class Server:
    """Numbers the frames of one epoch."""

    def __init__(self, epoch: str = "e1") -> None:
        self.epoch = epoch
        self.seq = 0

    def ready(self, *, resumed: bool = False, turn: Json | None = None, queued: tuple[Json, ...] = ()) -> Json:
        cursor = f"{self.epoch}:{self.seq}"
        return {"type": "ready", "cursor": cursor, "resumed": resumed, "turn": turn, "queued": list(queued)}

    def event(self, type_: str, attempt: int = 1, **fields: Any) -> Json:
        self.seq += 1
        place = {"epoch": self.epoch, "seq": self.seq}
        return {"type": type_, "turn_id": "t1", "attempt": attempt, "client_message_id": "m1", **place, **fields}

    def said(self, text: str, **fields: Any) -> Json:
        return self.event("message.delta", text=text, **fields)

    def completed(self, content: str, attempt: int = 1) -> Json:
        return self.event("turn.completed", attempt, turn=turn(content, "completed", attempt))


def turn(content: str | None, status: str = "completed", attempt: int = 1) -> Json:
    message = None if content is None else {"content": content}
    return {"id": "t1", "client_message_id": "m1", "attempt": attempt, "status": status, "message": message}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def seen(server: Server) -> Transcript:
    """A transcript of a device that has received the start of the turn."""
    transcript = Transcript()
    transcript.ready(server.ready())
    transcript.receive(server.event("turn.started"))
    return transcript


def test_a_reply_is_put_together_from_its_deltas(server: Server, seen: Transcript) -> None:
    for frame in (server.said("one "), server.said("two"), server.completed("one two")):
        seen.receive(frame)
    assert seen.replies["t1"].text == "one two"
    assert seen.turn_of == {"m1": "t1"}
    assert (seen.faults, seen.unfinished) == ([], [])


def test_joined_deltas_leave_no_gap(server: Server, seen: Transcript) -> None:
    server.seq += 2
    seen.receive(server.said("one two three", first_seq=2))
    assert seen.cursor == "e1:4"
    assert seen.faults == []


def test_a_gap_and_a_repetition_are_reported(server: Server, seen: Transcript) -> None:
    lost = server.said("lost")
    seen.receive(server.said("kept"))
    seen.receive(lost)
    assert len(seen.faults) == 2


def test_another_epoch_without_ready_is_reported(seen: Transcript) -> None:
    seen.receive(Server("e2").said("?"))
    assert len(seen.faults) == 1


def test_ready_in_mid_connection_replaces_unfinished_text(server: Server, seen: Transcript) -> None:
    seen.receive(server.said("half of wh"))
    again = Server("e2")
    again.seq = 7
    running = {"turn_id": "t1", "attempt": 1, "text": "half of what "}
    assert seen.ready(again.ready(turn=running)) == set()
    seen.receive(again.said("was said"))
    seen.receive(again.completed("half of what was said"))
    assert seen.faults == []
    assert seen.epochs == 2


def test_a_turn_that_is_missing_in_ready_is_to_be_read_from_the_history(server: Server, seen: Transcript) -> None:
    seen.receive(server.said("half of wh"))
    assert seen.ready(Server("e2").ready()) == {"t1"}
    seen.read(turn("half of what was said"))
    assert seen.ends["t1", 1]["message"]["content"] == "half of what was said"
    assert seen.faults == []


def test_a_resumed_connection_continues_at_its_cursor(server: Server, seen: Transcript) -> None:
    seen.ready(server.ready(resumed=True))
    seen.ready(Server("e2").ready(resumed=True))
    assert seen.faults == ["resumed at e2:0 instead of e1:1"]


def test_a_text_that_contradicts_its_terminal_event_is_reported(server: Server, seen: Transcript) -> None:
    seen.receive(server.said("one two two"))
    seen.receive(server.completed("one two"))
    assert len(seen.faults) == 1


def test_a_reply_whose_terminal_event_has_the_rest_is_reported_as_incomplete(server: Server, seen: Transcript) -> None:
    seen.receive(server.said("one"))
    seen.receive(server.completed("one two"))
    assert seen.faults == []
    assert len(seen.unfinished) == 1


def test_a_second_terminal_event_of_an_attempt_and_text_after_it_are_reported(server: Server, seen: Transcript) -> None:
    seen.receive(server.completed(""))
    seen.receive(server.completed(""))
    seen.receive(server.said("more"))
    assert len(seen.faults) == 2


def test_the_terminal_event_of_another_attempt_is_not_a_second_one(server: Server, seen: Transcript) -> None:
    seen.receive(server.event("turn.failed", turn=turn(None, "failed")))
    seen.receive(server.event("turn.started", 2))
    seen.receive(server.completed("", 2))
    assert seen.faults == []
    assert set(seen.ends) == {("t1", 1), ("t1", 2)}


def test_a_message_that_became_two_turns_is_reported(seen: Transcript) -> None:
    seen.accepted("m1", "t2")
    assert seen.faults == ["message m1 is both turn t1 and t2"]


def test_text_of_a_turn_that_was_not_started_is_reported(server: Server) -> None:
    seen = Transcript()
    seen.ready(server.ready())
    seen.receive(server.said("out of nowhere"))
    assert len(seen.faults) == 1
