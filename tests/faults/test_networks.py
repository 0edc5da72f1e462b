"""Clients on bad networks, one server: each device receives the whole reply, once."""

import asyncio
import contextlib
import json
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from server.protocol.limits import Limits
from tests.conftest import NewServer, report_logs
from tests.faults.chaos import BYTE_BY_BYTE, DROPPED, NORMAL, STALLED, ChaosProxy, at_rate
from tests.faults.clients import Device, all_quiet
from tests.faults.metrics import metric, until_metric
from tests.faults.transcript import TERMINAL, Transcript
from tests.stack.chat_client import ChatUser, register
from tests.stack.own_server import ServerProcess
from tests.stack.running_stack import RunningStack

ENDLESS = "SLOW 3000 0.04"
"""A reply that is still being written when it is cancelled, however long the steps before take."""


@pytest.fixture(scope="module")
async def shared_server(new_shared_server: NewServer) -> ServerProcess:
    return await new_shared_server(REDIS_URL=None)


@pytest.fixture
async def server(
    shared_server: ServerProcess, http: aiohttp.ClientSession, request: pytest.FixtureRequest
) -> AsyncIterator[ServerProcess]:
    """One instance, without Redis and without connections at first. No test ends it."""
    await until_metric(http, shared_server, "chat_connections", 0)
    yield shared_server
    report_logs(request, shared_server)


@pytest.fixture
async def ada(server: ServerProcess, http: aiohttp.ClientSession) -> ChatUser:
    """A user whose agent is ready."""
    user = await register(http, server.url)
    await user.say("ECHO hello")
    return user


@pytest.fixture
async def proxy(server: ServerProcess) -> AsyncIterator[ChaosProxy]:
    """A proxy in front of the server."""
    async with ChaosProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def gate() -> str:
    """A gate of the scripted model that no other test uses."""
    return uuid.uuid4().hex


async def end_everywhere(message_id: str, *devices: Device, status: str = "completed") -> str:
    """The reply to a message, once it has ended on each device and each has assembled the whole text."""
    ends = [await device.end_of(message_id) for device in devices]
    assert [turn["status"] for turn in ends] == [status] * len(devices)
    content = str(ends[0]["message"]["content"])
    assert [device.text(message_id) for device in devices] == [content] * len(devices)
    for device in devices:
        assert (device.transcript.faults, device.transcript.unfinished) == ([], [])
    return content


async def test_a_connection_that_stalls_in_mid_reply_goes_on_where_it_stopped(
    stack: RunningStack, http: aiohttp.ClientSession, server: ServerProcess, proxy: ChaosProxy, ada: ChatUser, gate: str
) -> None:
    async with Device(ada, [server.url]) as near, Device(ada, [proxy.url]) as far:
        await all_quiet([near, far])
        message = await near.say(f"GATE {gate} 3 30")
        await far.until(lambda: far.text(message) == "w0 w1 w2")
        proxy.set(STALLED)
        await stack.open_gate(http, gate)
        await near.end_of(message)
        assert far.text(message) == "w0 w1 w2"
        proxy.set(NORMAL)
        assert (await end_everywhere(message, near, far)).endswith("w32")
        assert far.connections == 1


async def test_bytes_that_arrive_one_by_one_make_the_same_conversation(
    server: ServerProcess, proxy: ChaosProxy, ada: ChatUser
) -> None:
    proxy.set(BYTE_BY_BYTE)
    async with Device(ada, [server.url]) as near, Device(ada, [proxy.url]) as far:
        await all_quiet([near, far])
        assert await end_everywhere(await far.say("ECHO byte by byte, ещё и по-русски"), near, far) == (
            "byte by byte, ещё и по-русски"
        )
        assert (await end_everywhere(await near.say("SLOW 20 0.01"), near, far)).endswith("w19")
        assert far.connections == 1


async def test_connections_reset_in_the_middle_of_frames_are_resumed_without_a_gap(
    server: ServerProcess, proxy: ChaosProxy, ada: ChatUser
) -> None:
    chance = random.Random(7)
    async with Device(ada, [server.url]) as near, Device(ada, [proxy.url]) as far:
        await all_quiet([near, far])
        message = await near.say(ENDLESS)
        for resets in range(1, 6):
            await far.until(lambda resets=resets: far.connected and far.connections == resets)  # type: ignore[misc]
            proxy.link_of(far.port).down.set(replace(NORMAL, reset_after=chance.randrange(20, 1000)))
        await far.until(lambda: far.connected and far.connections == 6)
        said = far.text(message)
        await far.until(lambda: len(far.text(message)) > len(said))
        await near.cancel(near.transcript.turn_of[message])
        assert (await end_everywhere(message, near, far, status="cancelled")).startswith(f"{said} ")
        assert far.connections == 6
        assert far.transcript.epochs == 1


async def test_event_streams_cut_in_the_middle_of_an_event_are_resumed_without_a_gap(
    server: ServerProcess, proxy: ChaosProxy, ada: ChatUser
) -> None:
    chance, seen = random.Random(5), Transcript()
    async with Device(ada, [server.url]) as near:
        await near.quiet()
        message = await near.say(ENDLESS)
        for _ in range(5):
            await read_events(proxy, ada, seen, cut_after=chance.randrange(800, 3000))
        await near.until(lambda: near.text(message))
        await near.cancel(near.transcript.turn_of[message])
        await read_events(proxy, ada, seen)
        content = await end_everywhere(message, near, status="cancelled")
    reply = seen.replies[near.transcript.turn_of[message]]
    assert (reply.text, reply.turn is not None, content != "") == (content, True, True)
    assert (seen.faults, seen.unfinished, seen.epochs) == ([], [], 1)


async def read_events(proxy: ChaosProxy, user: ChatUser, seen: Transcript, cut_after: int | None = None) -> None:
    """Read the session's events after the transcript's cursor, until a turn has ended or the connection breaks."""
    proxy.set(down=replace(NORMAL, reset_after=cut_after))
    headers = user.headers | ({"Last-Event-ID": seen.cursor} if seen.cursor else {})
    with contextlib.suppress(aiohttp.ClientError):
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{proxy.url}/api/v1/chat/events", headers=headers) as response,
        ):
            async for line in response.content:
                if line.startswith(b"data: ") and line.endswith(b"\n"):
                    event = json.loads(line[6:])
                    (seen.ready if event["type"] == "ready" else seen.receive)(event)
                    if event["type"] in TERMINAL:
                        return


async def test_half_a_message_is_no_message_and_its_repetition_is_one_turn(
    server: ServerProcess, proxy: ChaosProxy, ada: ChatUser
) -> None:
    async with Device(ada, [server.url]) as near, Device(ada, [proxy.url]) as far:
        await all_quiet([near, far])
        proxy.link_of(far.port).up.set(replace(NORMAL, reset_after=30))
        message = await far.say("ECHO twice sent")
        assert await end_everywhere(message, near, far) == "twice sent"
        assert far.connections == 2
    assert [m["content"] for m in (await ada.get("/chat/history"))["data"]][:2] == ["twice sent", "ECHO twice sent"]


async def test_a_message_whose_acknowledgement_was_lost_is_one_turn(
    server: ServerProcess, proxy: ChaosProxy, ada: ChatUser
) -> None:
    async with Device(ada, [server.url]) as near, Device(ada, [proxy.url]) as far:
        await all_quiet([near, far])
        link = proxy.link_of(far.port)
        link.down.set(DROPPED)
        message = await far.say("ECHO heard, not answered")
        await near.end_of(message)
        link.reset()
        assert await end_everywhere(message, near, far) == "heard, not answered"
        await far.quiet()
    assert len((await ada.get("/chat/history"))["data"]) == 4


async def test_a_client_reconnects_until_the_network_lets_a_connection_through(
    server: ServerProcess, proxy: ChaosProxy, ada: ChatUser
) -> None:
    async with Device(ada, [server.url]) as near, Device(ada, [proxy.url]) as far:
        await all_quiet([near, far])
        await proxy.refuse()
        for link in proxy.links:  # pooled ones of the HTTP client, too
            link.cut()
        message = await near.say("ECHO while you were out")
        await near.end_of(message)
        await far.until(lambda: far.closes[1006] >= 3)
        proxy.resets_newcomers = True
        proxy.listen()
        await far.until(lambda: far.closes[1006] >= 5)
        proxy.resets_newcomers = False
        await end_everywhere(message, near, far)


async def test_a_vanished_client_is_disconnected_and_resumes_without_a_gap(
    stack: RunningStack, http: aiohttp.ClientSession, server: ServerProcess, proxy: ChaosProxy, ada: ChatUser, gate: str
) -> None:
    async with (
        Device(ada, [server.url]) as near,
        Device(ada, [proxy.url], heartbeat=10) as silent,
        Device(ada, [proxy.url], heartbeat=10) as stuck,
    ):
        await all_quiet([near, silent, stuck])
        message = await near.say(f"GATE {gate} 3 30")
        await asyncio.gather(*(device.until(lambda d=device: d.text(message)) for device in (silent, stuck)))  # type: ignore[misc]
        dead = {proxy.link_of(silent.port), proxy.link_of(stuck.port)}
        proxy.link_of(silent.port).set(DROPPED)
        proxy.link_of(stuck.port).set(STALLED)
        await stack.open_gate(http, gate)
        await end_everywhere(message, near, silent, stuck)  # the two reconnect
        assert dead < set(proxy.links)  # and the proxy still has the old connections
        await until_metric(http, server, "chat_connections", 3)


async def test_a_reader_of_one_kilobyte_a_second_falls_behind_and_delays_no_other(
    http: aiohttp.ClientSession, server: ServerProcess, ada: ChatUser
) -> None:
    other = await register(http, server.url)
    async with (
        ChaosProxy(server.port, receive_buffer=4096) as thin,
        Device(ada, [server.url]) as near,
        Device(ada, [thin.url]) as far,
        Device(other, [server.url]) as stranger,
    ):
        await all_quiet([near, far, stranger])
        before = await metric(http, server, "process_resident_memory_bytes")
        thin.set(down=at_rate(1000))
        messages = [await near.say("SLOW 1500 0.004"), await stranger.say("SLOW 100 0.01")]
        await near.until(lambda: len(near.text(messages[0])) > 1500)
        assert len(far.text(messages[0])) < len(near.text(messages[0])) / 2
        await end_everywhere(messages[1], stranger)
        await end_everywhere(messages[0], near)
        assert await metric(http, server, "process_resident_memory_bytes") - before < 48 * 1024 * 1024
        thin.set(NORMAL)
        await end_everywhere(messages[0], near, far)
        assert (far.connections, far.closes.total()) == (1, 0)


async def test_a_reader_too_slow_for_the_log_is_closed_and_reads_what_it_missed_in_the_history(
    server: ServerProcess, ada: ChatUser
) -> None:
    async with (
        ChaosProxy(server.port, receive_buffer=4096) as thin,
        Device(ada, [server.url]) as near,
        Device(ada, [thin.url]) as far,
    ):
        await all_quiet([near, far])
        thin.set(down=at_rate(100))
        message = await near.say("SLOW 200000 0.001")  # words that come together are one event
        await near.until(lambda: _seq(near) - _seq(far) > Limits().log_events + 100, 200)
        thin.set(NORMAL)  # so that the close frame arrives before the server gives up
        await near.cancel(near.transcript.turn_of[message])
        ends = [await device.end_of(message) for device in (near, far)]
        assert ends[0]["message"]["content"] == ends[1]["message"]["content"] == near.text(message)
        assert (far.transcript.faults, far.closes) == ([], {4000: 1})


def _seq(device: Device) -> int:
    """The number of the last event that the device has handled."""
    assert device.transcript.cursor is not None
    return int(device.transcript.cursor.rpartition(":")[2])
