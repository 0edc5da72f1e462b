"""Which part of a growing text is final, and how Markdown is drawn."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_chat_client.talk.markdown import finished
from ai_chat_client.talk.paint import Paper
from ai_chat_client.talk.transcript import Wrote

BLOCKS = (
    "A paragraph\nof two lines.",
    "# A heading",
    "- one\n- two\n\n  more of two\n- three",
    "3. three\n4. four",
    "```python\nx = 1\n\n# no heading\n```",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "> quoted\n> on",
    "---",
    "    indented",
)


def drawn(text: str, width: int = 60, item: int | None = None) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", Paper().final([Wrote(text, item)], width)).strip("\n")


@pytest.mark.parametrize("block", BLOCKS)
def test_the_last_block_is_not_final_and_the_one_before_is(block: str) -> None:
    assert finished(f"First.\n\n{block}").length >= len("First.\n\n")
    assert finished(f"{block}\n\nNext").length == len(f"{block}\n\n")


def test_of_a_list_all_items_but_the_last_are_final() -> None:
    text = "- one\n- two\n  - inner\n- thr"
    assert finished(text) == (len("- one\n- two\n  - inner\n"), 0)
    assert finished("1. one\n1. two\n1. thr") == (len("1. one\n1. two\n"), 3)
    assert finished("- one") == (0, None)


def test_digits_may_be_the_next_item_of_a_list() -> None:
    assert finished("1. one\n\n2").length == 0
    assert finished("1. one\n\n2.") == (len("1. one\n\n"), 2)


def test_a_paragraph_may_still_become_a_heading_or_a_table() -> None:
    assert finished("Title\n===").length == finished("| a |\n|--").length == 0


@given(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=6), st.data())
def test_a_text_that_is_drawn_in_pieces_looks_like_the_whole(blocks: list[str], data: st.DataObject) -> None:
    text, position, pieces = "\n\n".join(blocks), 0, ""
    rest, item = text, None
    while position < len(text):
        position += data.draw(st.integers(1, 25))
        final = finished(rest[: max(position - len(text) + len(rest), 0)], item)
        if final.length:
            pieces += drawn(rest[: final.length], item=item) + "\n"
            rest, item = rest[final.length :], final.item
    assert words_of(pieces + drawn(rest, item=item)) == words_of(drawn(text))


def words_of(drawn_text: str) -> list[list[str]]:
    """The words of each line that has any."""
    return [line.split() for line in drawn_text.split("\n") if line.strip()]


def test_html_definitions_and_line_breaks_are_shown_as_text() -> None:
    assert drawn("<b>bold</b>\nnext\n\n[note]: /stays") == "<b>bold</b>\nnext\n\n[note]: /stays"


def test_the_address_of_a_link_is_shown() -> None:
    assert drawn("[your bank](https://evil.example)") == "your bank (https://evil.example)"
    assert "\x1b]8" not in Paper().final([Wrote("[a](https://b.example)")], 60)


def test_code_begins_at_the_left_edge_and_keeps_its_long_lines() -> None:
    long = f"x = '{'y' * 100}'"
    assert drawn(f"```python\ndef f():\n\tpass\n{long}\n```") == f"def f():\n    pass\n{long}"


def test_long_code_in_a_list_is_folded_and_not_cut() -> None:
    shown = drawn(f"- see\n\n  ```\n  {'y' * 100}\n  ```")
    assert shown.count("y") == 100


@pytest.mark.parametrize("width", [20, 40, 200])
def test_words_are_wrapped_at_the_width(width: int) -> None:
    text = "word " * 60 + "漢字" * 40
    lines = drawn(text, width).split("\n")
    assert max(len(line) + sum(one in "漢字" for one in line) for line in lines) <= width
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_parts_stand_one_line_apart_and_items_of_a_list_none() -> None:
    parts = [Wrote("para"), Wrote("1. a"), Wrote("2. b", 2), Wrote("| a |\n|---|\n| b |")]
    shown = re.sub(r"\x1b\[[0-9;]*m", "", Paper().final(parts, 60))
    assert shown == "para\n\n 1 a\n 2 b\n\n a\n ─\n b\n"


def test_no_line_ends_with_blanks() -> None:
    shown = drawn("para\n\n> quote\n\n- item\n\n|a|\n|-|\n|b|")
    assert not re.search(r" $", shown, re.MULTILINE)
