"""The user's name in the agent's memory block about its user."""

import pytest

from server.adapters.letta.template import memory_blocks, with_name


def human(name: str | None) -> str:
    return str(next(block["value"] for block in memory_blocks(name) if block["label"] == "human"))


@pytest.mark.parametrize(
    ("before", "previous", "after"),
    [
        (human(None), None, "User's name: Grace"),
        (human("Ada"), "Ada", "User's name: Grace"),
        ("User's name: Ada\nLikes tea.", "Ada", "User's name: Grace\nLikes tea."),
        ("Likes tea.\nUser's name: Ada\nHas a cat.", "Ada", "Likes tea.\nUser's name: Grace\nHas a cat."),
        ("User's name: Ada (prefers Countess)", "Ada", "User's name: Grace (prefers Countess)"),
        ("User's name: Ada. Ada likes tea.", "Ada", "User's name: Grace. Ada likes tea."),
        ("User's name: Ada\nUser's name: Ada", "Ada", "User's name: Grace\nUser's name: Ada"),
        ("User's name: A.* (x", "A.* (x", "User's name: Grace"),
    ],
)
def test_only_our_own_text_is_replaced(before: str, previous: str | None, after: str) -> None:
    assert with_name(before, previous, "Grace") == after


@pytest.mark.parametrize(
    ("before", "previous"),
    [
        ("", None),
        ("Likes tea.", "Ada"),
        ("User's name: Countess", "Ada"),
        ("User's name: Adalbert", "Ada"),
        ("User's name: Ada-Marie", "Ada"),
        ("My User's name: Ada", "Ada"),
        ("User's name: Ada", None),
    ],
)
def test_the_name_becomes_the_first_line_if_the_agent_has_rewritten_our_text(before: str, previous: str | None) -> None:
    assert with_name(before, previous, "Grace") == f"User's name: Grace\n{before}"


@pytest.mark.parametrize("before", ["", "Likes tea.", "User's name: Ada\nLikes tea.", "User's name: Grace (yes)"])
def test_writing_the_same_name_again_changes_nothing(before: str) -> None:
    once = with_name(before, "Ada", "Grace")
    assert with_name(once, "Ada", "Grace") == with_name(once, "Grace", "Grace") == once


@pytest.mark.parametrize("name", ["Grace\nUser's name: Eve", "Grace\r\x1b[2J", "Gra\u2028ce", "\\1 \\g<0>"])
def test_a_name_is_written_literally_on_one_line(name: str) -> None:
    previous = with_name("User's name: Ada\nLikes tea.", "Ada", name)
    assert previous.split("\n")[1:] == ["Likes tea."]
    assert with_name(previous, name, "Ada") == "User's name: Ada\nLikes tea."
