"""Turns in which the model calls several tools at once, gives no reply, or refuses: on the real services."""

import json
import uuid
from typing import Any

import aiohttp

from tests.stack.chat_client import ChatUser
from tests.stack.running_stack import RunningStack

CALLS = [
    ["memory_insert", {"label": "human", "new_string": "Rows"}],
    ["archival_memory_insert", {"content": "Rows on Sundays"}],
    ["memory_insert", {"label": "nobody", "new_string": "?"}],
]


def _said(asked: dict[str, Any]) -> list[str]:
    return [message["content"] for message in asked["messages"] if message["role"] == "user"]


async def test_every_tool_call_of_a_reply_is_executed_and_both_its_events_have_its_id(ada: ChatUser) -> None:
    async with ada.connect() as device:
        ack = await device.say(f"CALLS {json.dumps(CALLS)}")
        end = await device.end_of(ack["turn_id"])
        events = device.events_of(ack["turn_id"])
    called = [event for event in events if event["type"] == "tool.called"]
    returned = [event for event in events if event["type"] == "tool.returned"]
    assert [(event["call_id"], event["name"]) for event in called] == [
        (event["call_id"], event["name"]) for event in returned
    ]
    assert len({event["call_id"] for event in called}) == 3
    assert [event["status"] for event in returned] == ["success", "success", "error"]
    assert [event["truncated"] for event in called] == [False] * 3
    assert end["turn"]["message"]["content"] == "done: 3 results"
    memory = await ada.get("/agent/memory")
    assert any("Rows" in block["value"] for block in memory["blocks"])
    assert [passage["text"] for passage in memory["archival"]["data"]] == ["Rows on Sundays"]


async def test_cut_arguments_are_marked_as_truncated(ada: ChatUser) -> None:
    note = {"label": "human", "new_string": "x" * 20_000}
    async with ada.connect() as device:
        ack = await device.say(f"CALL QUIETLY memory_insert {json.dumps(note)}")
        called = await device.wait_for(lambda f: f["type"] == "tool.called")
        await device.end_of(ack["turn_id"])
    assert (len(called["arguments"]), called["truncated"]) == (16 * 1024, True)


async def test_a_reply_without_readable_text_has_failed(
    stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser
) -> None:
    marker, after = uuid.uuid4().hex, uuid.uuid4().hex
    async with ada.connect() as device:
        failed = (await device.end_of((await device.say(f"{marker} MUSE"))["turn_id"]))["turn"]
        assert (failed["status"], failed["message"]["content"], failed["message"]["status"]) == (
            "failed",
            "",
            "partial",
        )
        assert (failed["error"]["code"], failed["error"]["retryable"]) == ("model_error", True)
        assert failed["error"]["message"] == "The language model gave an empty answer."
        assert failed["cost_status"] in ("estimated", "settled")
        await device.end_of((await device.say(f"ECHO {after}"))["turn_id"])
    (asked,) = await stack.model_log(http, after)
    assert sum(marker in text for text in _said(asked)) == 1, "the agent remembers it: it is not told again"


async def test_a_change_of_the_memory_without_a_reply_is_a_completed_turn_with_a_reason(ada: ChatUser) -> None:
    async with ada.connect() as device:
        ack = await device.say('CALL QUIETLY memory_insert {"label": "human", "new_string": "Likes plums"}')
        end = await device.end_of(ack["turn_id"])
    assert (end["type"], end["turn"]["error"]) == ("turn.completed", None)
    assert end["turn"]["reason"] == "Your agent changed its memory and said nothing."
    assert end["turn"]["message"]["content"] == ""
    assert (await ada.get(f"/chat/turns/{ack['turn_id']}"))["reason"] == end["turn"]["reason"]


async def test_content_that_the_policy_refuses_has_its_own_code_and_is_not_sent_again(
    stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser
) -> None:
    refused, failed, after = (uuid.uuid4().hex for _ in range(3))
    status, problem = await ada.send(f"{refused} POLICY")
    assert (status, problem["code"], problem["retryable"]) == (422, "content_refused", False)
    assert "content policy" in problem["detail"]
    async with ada.connect() as device:
        end = await device.end_of((await device.say(f"{failed} DROP"))["turn_id"])
        assert end["turn"]["error"]["retryable"] is True
        await device.end_of((await device.say(f"ECHO {after}"))["turn_id"])
    (asked,) = await stack.model_log(http, after)
    assert [any(marker in text for text in _said(asked)) for marker in (refused, failed)] == [False, True]


async def test_long_messages_that_failed_are_named_and_not_sent_again(
    stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser
) -> None:
    after = uuid.uuid4().hex
    async with ada.connect() as device:
        for number in range(3):
            text = f"Question {number}. {'7 ' * 8_000} DROP"
            await device.end_of((await device.say(text))["turn_id"])
        await device.end_of((await device.say(f"ECHO {after}"))["turn_id"])
    (asked,) = await stack.model_log(http, after)
    naming, newest, new = _said(asked)
    assert ("“Question 0. 7 7" in naming, "“Question 1. 7 7" in naming, len(naming) < 250) == (True, True, True)
    assert newest.startswith("Question 2.")
    assert after in new
    assert sum(len(text) for text in _said(asked)) < 32_000 * 3 / 4 + 500
