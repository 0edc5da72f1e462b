"""What the agent is told again: what has room, in order, and the rest by name in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.ports import Forgotten, OutgoingMessage
from server.protocol.limits import reminder_bytes
from server.sessions.turns.reminders import reminders


def forgotten(number: int, text: str, reply: str = "") -> Forgotten:
    return Forgotten(f"turn-{number}", text, reply)


def test_a_reminder_has_the_reply_as_far_as_it_had_come() -> None:
    assert reminders([forgotten(1, "one", "half"), forgotten(2, "two"), forgotten(3, "three", "\u200b")], 1_000) == [
        OutgoingMessage("user", "one"),
        OutgoingMessage("assistant", "half […] (interrupted)"),
        OutgoingMessage("user", "two"),
        OutgoingMessage("user", "three"),
    ]


def test_the_newest_reminders_fit_first_and_the_others_are_named_in_one_line() -> None:
    long = "Please read\nthis: " + "x" * 500
    told = reminders([forgotten(1, long), forgotten(2, "a" * 100), forgotten(3, long), forgotten(4, "b" * 100)], 250)
    assert [message.content for message in told[1:]] == ["a" * 100, "b" * 100]
    assert told[0].role == "user"
    assert "\n" not in told[0].content
    assert told[0].content.count("“Please read this: xxx") == 2
    assert len(told[0].content) < 250


def test_a_reply_that_does_not_fit_leaves_its_message_out_too() -> None:
    (naming,) = reminders([forgotten(1, "short", "y" * 500)], 250)
    assert "“short”" in naming.content


@pytest.mark.parametrize("text", ["x" * 32_000, "я" * 32_000, "你" * 32_000])
def test_ten_long_messages_take_no_more_than_their_share_of_the_context(text: str) -> None:
    most = reminder_bytes(32_000)
    told = reminders([forgotten(number, text) for number in range(10)], most)
    assert sum(len(message.content.encode()) for message in told) < most + 2_000
    assert most / 3 <= 32_000 / 4


texts = st.text(max_size=60)


@given(st.lists(st.builds(Forgotten, st.uuids().map(str), texts, texts), max_size=10), st.integers(0, 400))
def test_whatever_was_forgotten_stays_within_its_bounds_in_order(turns: list[Forgotten], most: int) -> None:
    told = reminders(turns, most)
    named = told[:1] if told and told[0].content.startswith("(Earlier messages") else []
    kept = told[len(named) :]
    assert sum(len(message.content.encode()) for message in kept) <= most
    users = [message.content for message in kept if message.role == "user"]
    remaining = iter(turn.user_text for turn in turns)
    assert all(text in remaining for text in users)
    assert bool(named) == (len(users) < len(turns))
