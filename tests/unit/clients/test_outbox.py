"""Commands that wait for their answer."""

import asyncio
from typing import Any

import pytest

from ai_chat_client.errors import ChatError
from ai_chat_client.outbox import Outbox, retry_id
from tests.virtual_time import virtual_time


class Lab:
    """An outbox, what it transmits, and what the server answers."""

    def __init__(self, storage: dict[str, str] | None = None) -> None:
        self.sent: list[str] = []
        self.postponed: list[str] = []
        self.outbox = Outbox(
            lambda command: self.sent.append(str(command.get("id"))),
            lambda message_id, error: self.postponed.append(f"{message_id} {error.code}"),
            storage,
        )

    def message(self, message_id: str = "m1") -> asyncio.Future[str]:
        return self.outbox.add(
            {"type": "message", "id": message_id, "client_message_id": message_id, "content": "Hello"}
        )

    def retry(self, turn_id: str = "t1") -> asyncio.Future[str]:
        return self.outbox.add({"type": "retry", "id": retry_id(turn_id), "turn_id": turn_id})

    def receive(self, **frame: Any) -> str | None:
        received: Any = frame
        return self.outbox.receive(received)

    def ack(self, command_id: str, turn_id: str = "t1") -> str | None:
        return self.receive(type="ack", id=command_id, turn_id=turn_id)

    def refuse(self, command_id: str, code: str, *, retryable: bool, retry_after: int | None = None) -> None:
        fields = {"code": code, "message": code, "retryable": retryable, "retry_after": retry_after}
        self.receive(type="error", id=command_id, **fields)


@virtual_time
async def test_a_command_is_sent_again_at_each_flush_until_it_is_acknowledged() -> None:
    lab = Lab()
    answer = lab.message()
    lab.outbox.flush()
    lab.ack("m1")
    lab.outbox.flush()
    assert lab.sent == ["m1", "m1"]
    assert await answer == "t1"


@virtual_time
async def test_the_same_id_is_one_command() -> None:
    lab = Lab()
    assert lab.message() is lab.message()
    assert lab.sent == ["m1"]


@virtual_time
async def test_the_event_acknowledges_where_the_ack_was_lost() -> None:
    lab = Lab()
    answer, retried = lab.message("m2"), lab.retry("t2")
    event = {"type": "turn.started", "turn_id": "t2", "client_message_id": "m2"}
    assert lab.receive(**event) == "t2"
    assert (await answer, await retried) == ("t2", "t2")


@virtual_time
async def test_a_refusal_that_passes_is_repeated_after_the_time_that_the_server_names() -> None:
    lab = Lab()
    answer = lab.message()
    began = asyncio.get_running_loop().time()
    lab.refuse("m1", "rate_limited", retryable=True, retry_after=20)
    lab.outbox.flush()  # a reconnect does not shorten it
    assert lab.sent == ["m1"]
    await asyncio.sleep(30)
    assert lab.sent == ["m1", "m1"]
    assert lab.postponed == ["m1 rate_limited"]
    lab.ack("m1")
    assert await answer == "t1"
    assert asyncio.get_running_loop().time() - began >= 20


@virtual_time
async def test_it_gives_up_after_seven_refusals_and_at_once_where_waiting_does_not_help() -> None:
    lab = Lab()
    answer = lab.message()
    for _ in range(7):
        lab.refuse("m1", "overloaded", retryable=True)
        await asyncio.sleep(100)
    with pytest.raises(ChatError, match="overloaded"):
        await answer
    assert len(lab.sent) == 7
    answer = lab.message("m2")
    lab.refuse("m2", "busy", retryable=True)
    with pytest.raises(ChatError, match="busy"):
        await answer


@virtual_time
async def test_a_retry_that_arrived_twice_has_succeeded() -> None:
    lab = Lab()
    answer = lab.retry()
    lab.outbox.flush()
    lab.refuse(retry_id("t1"), "not_retryable", retryable=False)
    assert await answer == "t1"
    answer = lab.retry()
    lab.refuse(retry_id("t1"), "not_retryable", retryable=False)
    with pytest.raises(ChatError, match="not_retryable"):
        await answer


@virtual_time
async def test_messages_that_were_not_acknowledged_are_stored_for_their_user_alone() -> None:
    storage: dict[str, str] = {}
    lab = Lab(storage)
    lab.outbox.restore("ada")
    answers = [lab.message("m1"), lab.message("m2")]
    lab.ack("m1")
    lab.outbox.clear(ChatError("closed", "Closed."))
    assert isinstance(answers[1].exception(), ChatError)
    assert [message["client_message_id"] for message in Lab(storage).outbox.restore("ada")] == ["m2"]
    assert Lab(storage).outbox.restore("grace") == []
