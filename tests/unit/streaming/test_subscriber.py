"""When a connection sends a delta at once, and when its writer does: the writer keeps the order of everything else."""

import asyncio
from typing import Any

import pytest

from server.protocol.codes import SERVICE_RESTART, SLOW_CONSUMER
from server.protocol.limits import Limits
from server.sessions.events.codec import Entry
from server.sessions.events.log import EventLog
from server.sessions.events.snapshot import NOTHING_OPEN
from server.streaming.subscriber import Subscriber
from server.streaming.tcp import UNSENT_BYTES


class Transport(asyncio.Transport):
    unsent = 0
    closing = False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closing


class Connection(Subscriber):
    """Records what it sends. Its writer waits until it is woken, unless it is `busy`."""

    kind = "websocket"

    def __init__(self, log: EventLog, *, busy: bool = False) -> None:
        super().__init__()
        self.log = log
        self.stub = self.transport = Transport()
        self.reader = self.subscription = log.subscribe(None, self.deliver)
        self.sent: list[int] = []
        self.breaks = False
        self.busy = busy
        self.is_woken = False

    @property
    def is_writing(self) -> bool:
        return self.busy or self.is_woken

    def wake(self) -> None:
        self.is_woken = True

    async def send(self, entry: Entry) -> None:
        if self.breaks:
            raise ConnectionResetError
        self.sent.append(entry.seq)
        await asyncio.get_running_loop().create_future()  # the buffer drains never


def _delta(log: EventLog, text: str = "word ") -> None:
    log.append("message.delta", "t1", 1, text=text)


async def test_a_delta_is_sent_at_once_and_the_writer_waits_on() -> None:
    log = EventLog(Limits())
    connection = Connection(log)
    _delta(log)
    _delta(log)
    assert (connection.sent, connection.is_woken) == ([1, 2], False)
    assert not connection.reader.has_more


async def test_a_delta_is_sent_to_every_connection_that_waits() -> None:
    log = EventLog(Limits())
    first, busy, third = Connection(log), Connection(log, busy=True), Connection(log)
    _delta(log)
    assert (first.sent, busy.sent, third.sent) == ([1], [], [1])
    assert busy.reader.has_more


async def test_every_other_event_is_sent_by_the_writer() -> None:
    log = EventLog(Limits())
    connection = Connection(log)
    log.append("turn.completed", "t1", 1)
    assert (connection.sent, connection.is_woken) == ([], True)


async def test_a_delta_behind_another_event_is_sent_by_the_writer() -> None:
    log = EventLog(Limits())
    connection = Connection(log)
    log.append("turn.started", "t1", 1)
    _delta(log)
    assert connection.sent == []
    assert [frame.seq for frame in connection.reader.take()] == [1, 2]


async def test_a_response_that_waits_is_sent_before_a_later_delta() -> None:
    log = EventLog(Limits())
    connection = Connection(log)
    connection.wake()  # for the response
    _delta(log)
    assert (connection.sent, connection.reader.has_more) == ([], True)


@pytest.mark.parametrize("state", [{"unsent": 1}, {"closing": True}], ids=["unsent bytes", "a closing socket"])
async def test_a_socket_that_does_not_take_it_at_once_is_left_to_the_writer(state: dict[str, Any]) -> None:
    log = EventLog(Limits())
    connection = Connection(log)
    vars(connection.stub).update(state)
    _delta(log)
    assert (connection.sent, connection.is_woken) == ([], True)


@pytest.mark.parametrize("size", [UNSENT_BYTES - 150, UNSENT_BYTES], ids=["with its frame", "alone"])
async def test_a_delta_that_fills_the_buffer_is_left_to_the_writer_which_waits_for_it_to_drain(size: int) -> None:
    log = EventLog(Limits())
    connection = Connection(log)
    _delta(log, "x" * size)
    assert (connection.sent, connection.is_woken) == ([], True)


async def test_a_new_epoch_is_begun_by_the_writer() -> None:
    log = EventLog(Limits())
    connection = Connection(log)
    log.restart("another", 1, NOTHING_OPEN, (None, None), "")  # its number is the next one, too
    assert connection.is_woken
    _delta(log)
    assert connection.sent == []


async def test_a_broken_connection_does_not_break_the_session() -> None:
    log = EventLog(Limits())
    broken, other = Connection(log), Connection(log)
    broken.breaks = True
    _delta(log)
    assert (broken.sent, other.sent) == ([], [1])


async def test_a_closing_connection_sends_no_delta() -> None:
    log = EventLog(Limits())
    connection = Connection(log)
    connection.close(SERVICE_RESTART)
    connection.is_woken = False  # its writer has sent the close frame
    _delta(log)
    assert (connection.sent, connection.is_woken) == ([], False)


async def test_a_blocked_writer_that_falls_behind_is_closed_also_if_all_before_was_sent_at_once() -> None:
    log = EventLog(Limits(slow_consumer_bytes=1000))
    connection = Connection(log)
    _delta(log)
    connection.wake()
    for _ in range(100):
        _delta(log)
    assert connection.closing is SLOW_CONSUMER


async def test_a_connection_is_not_slow_because_of_what_was_sent_at_once() -> None:
    log = EventLog(Limits(slow_consumer_bytes=1000))
    connection = Connection(log)
    for _ in range(100):
        _delta(log)
    connection.wake()
    _delta(log)
    assert connection.closing is None
