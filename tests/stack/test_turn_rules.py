"""The rules of a turn on the real agent: queue, cancel, interrupt, failure, retry, reminders."""

import asyncio
import uuid
from typing import Any

import pytest

from tests.stack.bookkeeper import Bookkeeper
from tests.stack.chat_client import ChatUser


@pytest.fixture
def gate() -> str:
    """A gate of the scripted model that no other test uses."""
    return uuid.uuid4().hex


async def test_messages_are_queued_in_order_and_answered_one_at_a_time(
    stack: Any, http: Any, ada: ChatUser, gate: str
) -> None:
    async with ada.connect() as device:
        acks = [await device.say(f"GATE {gate} 0 1"), await device.say("ECHO two"), await device.say("ECHO three")]
        assert [ack["queue_position"] for ack in acks] == [None, 1, 2]
        await stack.at_gate(http, gate)
        async with ada.connect() as other:
            assert [turn["id"] for turn in other.ready["queued"]] == [ack["turn_id"] for ack in acks[1:]]
            assert other.ready["turn"]["turn_id"] == acks[0]["turn_id"]
        await stack.open_gate(http, gate)
        ends = [await device.end_of(ack["turn_id"]) for ack in acks]
    assert [end["type"] for end in ends] == ["turn.completed"] * 3
    assert [end["seq"] for end in ends] == sorted(end["seq"] for end in ends)
    history = (await ada.get("/chat/history"))["data"]
    assert [m["content"] for m in reversed(history) if m["role"] == "assistant"][1:] == ["two", "three"]


async def test_cancelling_from_another_device_keeps_the_partial_reply(
    stack: Any, http: Any, ada: ChatUser, gate: str
) -> None:
    async with ada.connect() as phone, ada.connect() as laptop:
        ack = await phone.say(f"GATE {gate} 3 3")
        await phone.wait_for(lambda _: phone.text_of(ack["turn_id"]).split() == ["w0", "w1", "w2"])
        await laptop.send(type="cancel", id="stop")
        assert (await laptop.answer_to("stop"))["turn_id"] == ack["turn_id"]
        ends = await asyncio.gather(phone.end_of(ack["turn_id"]), laptop.end_of(ack["turn_id"]))
        await stack.open_gate(http, gate)
        assert [end["type"] for end in ends] == ["turn.cancelled"] * 2
        message = ends[0]["turn"]["message"]
        assert (message["content"].split(), message["status"]) == (["w0", "w1", "w2"], "partial")
        assert message["content"] == phone.text_of(ack["turn_id"]) == laptop.text_of(ack["turn_id"])
        assert (await phone.end_of((await phone.say("ECHO free again"))["turn_id"]))["type"] == "turn.completed"


async def test_an_interrupt_cancels_the_running_and_the_queued_turns(
    stack: Any, http: Any, ada: ChatUser, gate: str
) -> None:
    async with ada.connect() as device:
        running = await device.say(f"GATE {gate} 1 3")
        waiting = await device.say("ECHO never said")
        await stack.at_gate(http, gate)
        urgent = await device.say("ECHO now", on_busy="interrupt")
        assert (await device.end_of(waiting["turn_id"]))["type"] == "turn.cancelled"
        assert (await device.end_of(running["turn_id"]))["type"] == "turn.cancelled"
        assert (await device.end_of(urgent["turn_id"]))["turn"]["message"]["content"] == "now"
        await stack.open_gate(http, gate)
    turn = await ada.get(f"/chat/turns/{waiting['turn_id']}")
    assert (turn["status"], turn["cost"], turn["message"]) == ("cancelled", None, None)


async def test_a_message_can_be_rejected_while_a_turn_runs(stack: Any, http: Any, ada: ChatUser, gate: str) -> None:
    async with ada.connect() as device:
        ack = await device.say(f"GATE {gate} 0 1")
        refused = await device.say("ECHO no", on_busy="reject")
        assert (refused["type"], refused["code"], refused["retryable"]) == ("error", "busy", True)
        await stack.open_gate(http, gate)
        await device.end_of(ack["turn_id"])
    assert len((await ada.get("/chat/history"))["data"]) == 2


async def test_a_failed_turn_says_why_and_a_retry_completes_it(ada: ChatUser) -> None:
    content = f"{uuid.uuid4().hex} ERR 400 1"
    async with ada.connect() as device:
        ack = await device.say(content)
        failed = await device.end_of(ack["turn_id"])
        assert failed["type"] == "turn.failed"
        assert (failed["turn"]["error"]["code"], failed["turn"]["error"]["retryable"]) == ("model_error", False)
        await device.send(type="retry", id="again", turn_id=ack["turn_id"])
        assert (await device.answer_to("again"))["turn_id"] == ack["turn_id"]
        done = await device.wait_for(lambda f: f["type"] == "turn.completed" and f["turn_id"] == ack["turn_id"])
    assert (done["attempt"], done["turn"]["attempt"]) == (2, 2)
    history = (await ada.get("/chat/history"))["data"]
    assert [m["role"] for m in history] == ["assistant", "user"]
    status, problem = await ada.call("POST", f"/chat/turns/{ack['turn_id']}/retry")
    assert (status, problem["code"]) == (409, "not_retryable")


async def test_the_agent_is_reminded_once_of_what_it_forgot(stack: Any, http: Any, ada: ChatUser, gate: str) -> None:
    marker = uuid.uuid4().hex
    async with ada.connect() as device:
        ack = await device.say(f"{marker} GATE {gate} 2 2")
        await device.wait_for(lambda _: device.text_of(ack["turn_id"]).split() == ["w0", "w1"])
        await device.send(type="cancel", id="stop")
        await device.end_of(ack["turn_id"])
        await stack.open_gate(http, gate)
        first, second = f"ECHO {uuid.uuid4().hex}", f"ECHO {uuid.uuid4().hex}"
        for text in (first, second):
            await device.end_of((await device.say(text))["turn_id"])
    (asked,) = await stack.model_log(http, first[5:])
    assert sum(marker in text for text in _said(asked, "user")) == 1
    assert any("w0 w1" in text and "interrupted" in text for text in _said(asked, "assistant"))
    (asked,) = await stack.model_log(http, second[5:])
    assert sum(marker in text for text in _said(asked, "user")) == 1


def _said(request: dict[str, Any], role: str) -> list[str]:
    """The texts of one role in a prompt."""
    return [str(message.get("content")) for message in request["messages"] if message["role"] == role]


async def test_closing_every_device_cancels_nothing(stack: Any, http: Any, ada: ChatUser, gate: str) -> None:
    async with ada.connect() as device:
        ack = await device.say(f"GATE {gate} 1 2")
        await stack.at_gate(http, gate)
        cursor = device.ready["cursor"]
    await stack.open_gate(http, gate)
    async with ada.connect(after=cursor) as later:
        assert later.ready["resumed"] is True
        end = await later.end_of(ack["turn_id"])
        assert end["turn"]["message"]["content"] == later.text_of(ack["turn_id"]) == "w0 w1 w2"


async def test_a_stream_that_is_broken_on_purpose_ends_as_the_same_reply_with_one_charge(
    stack: Any, http: Any, ada: ChatUser, gate: str
) -> None:
    async with ada.connect() as device:
        ack = await device.say(f"GATE {gate} 2 3")
        await device.wait_for(lambda _: device.text_of(ack["turn_id"]).split() == ["w0", "w1"])
        status, problem = await ada.call("POST", "/development/break-stream")
        assert (status, problem) == (204, None)
        await stack.open_gate(http, gate)
        end = await device.end_of(ack["turn_id"])
    assert end["type"] == "turn.completed"
    assert end["turn"]["message"]["content"] == device.text_of(ack["turn_id"]) == "w0 w1 w2 w3 w4"
    assert len(await stack.model_log(http, gate)) == 1
    book = await Bookkeeper(stack.env, http).settled(ada)
    assert book.wrong == []
    assert len(book.of_turn(ack["turn_id"])) == 1
    log = (stack.data_dir / "logs" / "server.log").read_text("utf-8")
    assert any("turn.recovering" in line and ack["turn_id"] in line for line in log.splitlines())
