"""Commands that wait for their answer."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from ai_chat_client.errors import ChatError
from ai_chat_client.outbox import Outbox, retry_id
from tests.virtual_time import virtual_time


class Lab:
    """An outbox, what it transmits, and what the server answers."""

    def __init__(self, storage: MutableMapping[str, str] | None = None) -> None:
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


def stored(storage: MutableMapping[str, str]) -> list[str]:
    """What the next program of this user would send."""
    return [message["client_message_id"] for message in Lab(storage).outbox.restore("ada")]


@virtual_time
async def test_messages_are_restored_in_their_order() -> None:
    storage: dict[str, str] = {}
    lab = Lab(storage)
    lab.outbox.restore("ada")
    sent = [f"m{number}" for number in (3, 1, 2, 5, 4)]
    for message_id in sent:
        lab.message(message_id)
    assert stored(storage) == sent


@pytest.mark.parametrize("first", [0, 1])
@virtual_time
async def test_two_programs_with_one_storage_lose_none_of_each_others_messages(first: int) -> None:
    storage: dict[str, str] = {}
    labs = [Lab(storage), Lab(storage)]
    for lab in labs:
        lab.outbox.restore("ada")
    for number, lab in enumerate(labs):
        lab.message(f"acknowledged {number}")
        lab.message(f"waits {number}")
        lab.ack(f"acknowledged {number}")
    for lab in (labs[first], labs[1 - first]):
        lab.outbox.clear(ChatError("closed", "Closed."))
        assert stored(storage) == ["waits 0", "waits 1"]


@virtual_time
async def test_a_message_that_two_programs_send_is_deleted_by_whichever_is_answered() -> None:
    storage: dict[str, str] = {}
    first, second = Lab(storage), Lab(storage)
    first.outbox.restore("ada")
    answers = [first.message()]
    [message] = second.outbox.restore("ada")
    answers.append(second.message(message["client_message_id"]))
    assert len(storage) == 1
    second.ack("m1")
    assert storage == {}
    first.ack("m1")
    assert (storage, [await answer for answer in answers]) == ({}, ["t1", "t1"])


@virtual_time
async def test_a_message_that_was_sent_again_before_its_user_was_known_is_stored_once() -> None:
    storage: dict[str, str] = {}
    before = Lab(storage)
    before.outbox.restore("ada")
    before.message("m1")
    lab = Lab(storage)
    lab.message("m1")
    lab.message("m2")
    assert lab.outbox.restore("ada") == []
    assert len(storage) == 2
    lab.ack("m1")
    lab.ack("m2")
    assert storage == {}
