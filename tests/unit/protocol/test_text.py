"""Texts with and without visible characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.text import is_readable

UNSEEN = [
    "",
    " \t\r\n",
    "\u200b",
    "\u200b \u200c\u200d\n",
    "\ufeff",
    "\u00a0\u2003\u3000",
    "\u00ad",
    "\u2060\u2063",
    "\u180e",
    "\u115f\u3164\uffa0",
    "\u2800",
    "\ufe0f",
    "\u034f",
    "\u202e\u2066",
    "\U000e0041\U000e007f",
    "\U000e0100",
    "\x07\x1b",
    "\ud800",
    "\u2028\u2029",
]


@pytest.mark.parametrize("text", UNSEEN)
def test_invisible_characters_are_not_readable(text: str) -> None:
    assert not is_readable(text)


@pytest.mark.parametrize("text", [*"a0.?—你ж🙂`ع", "👩\u200d👧", "\u0301", "\ufffd", "\ue000", "\u200eع"])
def test_visible_characters_are_readable(text: str) -> None:
    assert is_readable(text)
    assert is_readable(f"\u200b \n{text}\u200b")


@given(st.lists(st.sampled_from(UNSEEN)).map("".join))
def test_no_combination_of_invisible_characters_is_readable(text: str) -> None:
    assert not is_readable(text)
