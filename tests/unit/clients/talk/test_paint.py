"""Tool calls in words: a model may give any arguments, and none of them ends the app."""

import pytest

from ai_chat_client.state import ToolCall
from ai_chat_client.talk.paint import tool_line

DEEP = "[" * 5_000


@pytest.mark.parametrize("name", ["memory_insert", "of_another_server"])
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ('{"content": "tea"}', ": tea"),
        ('{"content": null}', ": None"),
        ('{"content": "te', ': {"content": "te'),
        ("[1]", ": [1]"),
        ('"content"', ': "content"'),
        ("", ""),
        (DEEP, f": {DEEP[:159]}…"),
        ('{"content": ' + DEEP, (': {"content": ' + DEEP)[:161] + "…"),
    ],
)
def test_any_arguments_of_a_tool_are_shown_on_one_line(name: str, arguments: str, shown: str) -> None:
    line = tool_line(ToolCall(id="1", name=name, arguments=arguments, truncated=False, status="success"))
    assert line == f"✓ {'remembers' if name == 'memory_insert' else name}{shown}"
