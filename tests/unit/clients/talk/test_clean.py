"""Nothing that a terminal would obey reaches it."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_chat_client.talk.clean import clean, one_line

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07\x1b]52;c;ZXZpbA==\x1b\\\x9b31m\x90q\x9c\x08\x7f\x00\u202eabc\u2066d\u200be\ufeff\U000e0041"
)


def test_control_characters_are_shown_and_change_nothing() -> None:
    assert clean("a\x1b[31mb\x07\x9bc") == r"a\x1b[31mb\x07\x9bc"


def test_overrides_of_direction_and_invisible_characters_are_removed() -> None:
    assert clean("a\u202eb\u2066c\u200bd\u00ade\U000e0041f") == "abcdef"


@pytest.mark.parametrize("text", ["👩‍👩‍👧", "می‌خواهم", "שלום \u200fעולם", "漢字 e\u0301 ﷺ", "🏳️‍🌈", "a\tb\nc"])
def test_text_of_all_languages_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_all_line_breaks_are_one() -> None:
    assert clean("a\r\nb\rc\u2028d\u2029e\nf") == "a\nb\nc\nd\ne\nf"


def test_a_half_of_a_surrogate_pair_is_replaced() -> None:
    assert clean("a\ud800b") == "a\N{REPLACEMENT CHARACTER}b"


def test_one_line_has_no_break_and_no_tab() -> None:
    assert one_line(" a\n\tb\x0bc ") == r"a b\x0bc"


@given(st.text(st.characters(), max_size=20))
def test_no_control_or_format_character_is_left(text: str) -> None:
    left = {unicodedata.category(one) for one in clean(text) if one not in "\n\t\u200c\u200d\u200e\u200f\u061c"}
    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text(st.characters(), max_size=20), st.integers(0, 20))
def test_the_clean_beginning_is_the_beginning_of_the_clean_text(text: str, length: int) -> None:
    assert clean(text).startswith(clean(text[:length]))
