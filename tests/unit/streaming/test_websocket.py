"""The WebSocket protocol: the `ready` frame, commands and their responses, resuming."""

import asyncio

import pytest

from server.protocol.limits import Limits
from tests.fakes.agent import MODEL_FAILED, Reply, Tool
from tests.unit.sessions.world import SPOKEN
from tests.unit.streaming.server_fixture import StreamingServer
from tests.virtual_time import virtual_time_with_sockets

STUCK = Reply(words=("Well, ",), stuck=True)
CHATTY = Reply(words=("a ", "b ", "c "), reasoning=("hm ",), tools=(Tool("search"),), per_word=0.1)


@virtual_time_with_sockets
async def test_a_message_is_acknowledged_and_its_reply_streamed_to_every_socket() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.socket(user) as phone, server.socket(user) as laptop:
            await phone.send("message", client_message_id="m1", content="count")
            ack = await phone.until("ack")
            for socket in (phone, laptop):
                end = await socket.until("turn.completed")
                assert end["turn_id"] == ack["turn_id"]
                assert socket.text() == end["turn"]["message"]["content"] == SPOKEN.text
            assert ack | {"id": "m1", "queue_position": None, "duplicate": False} == ack
            assert not any(frame["type"] == "ack" for frame in laptop.seen)


@virtual_time_with_sockets
async def test_ready_has_the_user_the_cursor_the_running_turn_and_the_queue() -> None:
    async with StreamingServer(reply=STUCK) as server:
        user = server.user()
        async with server.socket(user) as first:
            ready = first.seen[0]
            assert ready["cursor"].endswith(":0")
            assert (ready["resumed"], ready["user_id"], ready["turn"], ready["queued"]) == (False, user, None, [])
            assert ready["limits"]["frame_bytes"] == 65536
            await first.send("message", client_message_id="m1", content="one")
            await first.send("message", client_message_id="m2", content="two")
            await first.until("message.delta")
            async with server.socket(user) as second:
                ready = second.seen[0]
                assert (ready["turn"]["text"], ready["turn"]["user_message"]["content"]) == ("Well, ", "one")
                assert [turn["user_message"]["content"] for turn in ready["queued"]] == ["two"]


@virtual_time_with_sockets
async def test_each_response_has_the_id_of_its_frame() -> None:
    async with StreamingServer(reply=STUCK) as server, server.socket(server.user()) as socket:
        await socket.send("ping", id="p")
        assert await socket.until("pong") == {"type": "pong", "id": "p"}
        await socket.send("ping")
        assert await socket.until("pong") == {"type": "pong"}
        await socket.send("message", id="mine", client_message_id="m1", content="one")
        assert (await socket.until("ack"))["id"] == "mine"
        await socket.send("cancel", id="stop")
        assert (await socket.until("ack"))["id"] == "stop"
        await socket.send("retry", id="again", turn_id="00000000-0000-4000-8000-000000000000")
        error = await socket.until("error")
        assert (error["id"], error["code"], error["retryable"]) == ("again", "not_found", False)


@virtual_time_with_sockets
async def test_cancel_without_an_id_stops_the_running_turn_and_keeps_its_text() -> None:
    async with StreamingServer(reply=STUCK) as server:
        user = server.user()
        async with server.socket(user) as sender, server.socket(user) as other:
            await sender.send("message", client_message_id="m1", content="one")
            await other.until("message.delta")
            await other.send("cancel")
            end = await sender.until("turn.cancelled")
            assert (end["turn"]["message"]["content"], end["turn"]["message"]["status"]) == ("Well, ", "partial")


@virtual_time_with_sockets
async def test_retry_runs_the_same_turn_again() -> None:
    async with StreamingServer() as server:
        server.world.gateway.plan(Reply(words=(), error=MODEL_FAILED))
        async with server.socket(server.user()) as socket:
            await socket.send("message", client_message_id="m1", content="one")
            failed = await socket.until("turn.failed")
            assert failed["turn"]["error"]["retryable"]
            await socket.send("retry", turn_id=failed["turn_id"])
            end = await socket.until("turn.completed")
            assert (end["turn_id"], end["attempt"]) == (failed["turn_id"], 2)


@virtual_time_with_sockets
async def test_a_repeated_message_is_acknowledged_with_its_turn_in_every_state() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.socket(user) as socket:
            await socket.send("message", client_message_id="m1", content="one")
            await socket.send("message", client_message_id="m1", content="one")
            first, running = await socket.until("ack"), await socket.until("ack")
            assert (running["turn_id"], running["duplicate"]) == (first["turn_id"], True)
            numbered = await socket.until("turn.completed")
            await socket.send("message", client_message_id="m1", content="one")
            ended = await socket.until("ack")
            assert (ended["turn_id"], ended["duplicate"]) == (first["turn_id"], True)
            unnumbered = await socket.until("turn.completed")
            assert "seq" not in unnumbered
            assert unnumbered["turn"] == numbered["turn"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"content": "other"}, "id_conflict"), ({"client_message_id": "m2", "on_busy": "reject"}, "busy")],
)
@virtual_time_with_sockets
async def test_a_refused_message_is_one_error_and_the_socket_stays_open(fields: dict[str, str], code: str) -> None:
    async with StreamingServer(reply=STUCK) as server, server.socket(server.user()) as socket:
        await socket.send("message", client_message_id="m1", content="one")
        await socket.until("ack")
        await socket.send("message", **{"client_message_id": "m1", "content": "one"} | fields)
        error = await socket.until("error")
        assert (error["code"], error["id"]) == (code, fields.get("client_message_id", "m1"))
        await socket.send("ping")
        await socket.until("pong")


@virtual_time_with_sockets
async def test_a_full_queue_is_an_error() -> None:
    limits = Limits(waiting_turns_per_user=1)
    async with StreamingServer(limits=limits, reply=STUCK) as server, server.socket(server.user()) as socket:
        for number in range(3):
            await socket.send("message", client_message_id=f"m{number}", content="wait")
        error = await socket.until("error")
        assert (error["code"], error["id"], error["retryable"]) == ("queue_full", "m2", True)


@virtual_time_with_sockets
async def test_a_socket_resumes_after_every_cursor_with_exactly_the_missed_events() -> None:
    async with StreamingServer(reply=CHATTY) as server:
        user = server.user()
        async with server.socket(user) as steady:
            await steady.send("message", client_message_id="m1", content="one")
            await steady.until("turn.completed")
        events = [frame for frame in steady.seen if "seq" in frame]
        epoch, text = events[0]["epoch"], steady.text()
        for seq in range(len(events) + 1):
            async with server.socket(user, after=f"{epoch}:{seq}") as socket:
                assert (socket.seen[0]["resumed"], socket.seen[0]["turn"]) == (True, None)
                if seq < len(events):
                    await socket.until("turn.completed")
                missed = [frame for frame in socket.seen if "seq" in frame]
                assert [frame.get("first_seq", frame["seq"]) for frame in missed[:1]] == [seq + 1][: len(missed)]
                before = "".join(event.get("text", "") for event in events[:seq] if event["type"] == "message.delta")
                assert before + socket.text() == text


@pytest.mark.parametrize("after", ["unknown:0", "unknown:7", "{epoch}:999"])
@virtual_time_with_sockets
async def test_an_unknown_cursor_is_not_resumed(after: str) -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.socket(user) as first:
            epoch = first.seen[0]["cursor"].partition(":")[0]
            async with server.socket(user, after=after.format(epoch=epoch)) as socket:
                assert not socket.seen[0]["resumed"]


@virtual_time_with_sockets
async def test_a_socket_opened_in_the_middle_of_a_reply_gets_the_whole_reply() -> None:
    async with StreamingServer(reply=CHATTY) as server:
        user = server.user()
        async with server.socket(user) as first:
            await first.send("message", client_message_id="m1", content="one")
            await first.until("message.delta")
            async with server.socket(user) as late:
                end = await late.until("turn.completed")
                assert late.seen[0]["turn"]["text"] + late.text() == end["turn"]["message"]["content"]


@virtual_time_with_sockets
async def test_closing_every_socket_does_not_cancel_the_turn() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.socket(user) as socket:
            await socket.send("message", client_message_id="m1", content="one")
            await socket.until("message.delta")
        await asyncio.sleep(60)
        [turn] = server.world.turns(user)
        assert (turn.status, server.world.reply_of(turn.id)) == ("completed", SPOKEN.text)


@virtual_time_with_sockets
async def test_a_draining_server_closes_sockets_after_the_running_turn() -> None:
    async with StreamingServer() as server, server.socket(server.user()) as socket:
        await socket.send("message", client_message_id="m1", content="one")
        await socket.until("message.delta")
        draining = asyncio.ensure_future(server.process.hub.drain(60))
        await socket.until("turn.completed")
        assert await socket.closed() == (1012, "draining")
        await draining


@virtual_time_with_sockets
async def test_a_defect_in_a_command_is_one_error_and_the_socket_stays_open() -> None:
    async with StreamingServer() as server, server.socket(server.user()) as socket:

        async def broken(_operation: str) -> None:
            raise RuntimeError("a defect")

        server.world.database.before = broken
        await socket.send("message", client_message_id="m1", content="one")
        error = await socket.until("error")
        assert (error["code"], error["id"]) == ("internal_error", "m1")
        server.world.database.before = None
        await socket.send("message", client_message_id="m1", content="one")
        await socket.until("turn.completed")
