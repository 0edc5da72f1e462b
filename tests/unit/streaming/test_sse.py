"""Server-Sent Events: a session's stream, and one turn's stream as the response to its message."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from server.protocol.limits import Limits
from tests.fakes.agent import MODEL_FAILED, Reply
from tests.unit.sessions.world import SPOKEN, message
from tests.unit.streaming.raw import RawSocket
from tests.unit.streaming.server_fixture import StreamingServer
from tests.virtual_time import now, virtual_time_with_sockets

STUCK = Reply(words=("Well, ",), stuck=True)
SLOW = Reply(SPOKEN.words, first_token=1.0, per_word=1.0)


# -- the session's stream --------------------------------------------------------------------------------------------


@virtual_time_with_sockets
async def test_a_stream_delivers_every_event_with_its_cursor_as_id() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.events(user) as events:
            ready = await events.until("ready")
            assert (ready["user_id"], events.ids) == (user, [ready["cursor"]])
            await server.process.send(user, "count")
            end = await events.until("turn.completed")
            assert events.text() == end["turn"]["message"]["content"] == SPOKEN.text
            numbered = [(event, id_) for event, id_ in zip(events.seen, events.ids, strict=True) if "seq" in event]
            assert [id_ for _, id_ in numbered] == [f"{event['epoch']}:{event['seq']}" for event, _ in numbered]


@virtual_time_with_sockets
async def test_its_headers_forbid_proxies_to_cache_or_buffer_it() -> None:
    async with StreamingServer() as server, server.events(server.user()) as events:
        headers = events.response.headers
        assert headers["Content-Type"].startswith("text/event-stream")
        assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-store, no-transform", "no")


@pytest.mark.parametrize("manner", ["after", "last_event_id"])
@virtual_time_with_sockets
async def test_a_stream_resumes_from_every_cursor(manner: str) -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.events(user) as events:
            await events.until("ready")
            await server.process.send(user, "count")
            await events.until("turn.completed")
        cursors = [id_ for id_ in events.ids if id_ is not None]
        before = ""
        for seen, cursor in enumerate(cursors[:-1]):
            before = "".join(event.get("text", "") for event in events.seen[: seen + 1])
            place = {"after": cursor} if manner == "after" else {"last_event_id": cursor}
            async with server.events(user, **place) as resumed:  # type: ignore[arg-type]
                assert (await resumed.until("ready"))["resumed"]
                await resumed.until("turn.completed")
                assert before + resumed.text() == SPOKEN.text


@virtual_time_with_sockets
async def test_an_unknown_cursor_is_not_resumed_and_a_malformed_one_is_refused() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.events(user, last_event_id="unknown:3") as events:
            assert not (await events.until("ready"))["resumed"]
        async with server.events(user, last_event_id="nonsense") as events:
            assert events.response.status == 400


@virtual_time_with_sockets
async def test_an_idle_stream_carries_a_comment_every_25_seconds() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.events(user) as events:
            await events.until("ready")
            rest = asyncio.ensure_future(events.until("turn.started"))
            await asyncio.sleep(80)
            await server.process.send(user, "count")
            await rest
            assert events.comments == 3


@virtual_time_with_sockets
async def test_a_stream_ends_with_reconnect_before_proxies_cut_it() -> None:
    async with StreamingServer() as server, server.events(server.user()) as events:
        began = now()
        await events.rest()
        assert events.types == ["ready", "reconnect"]
        assert 12 * 60 < (now() - began).total_seconds() < 14 * 60


@virtual_time_with_sockets
async def test_a_stream_ends_with_reconnect_when_its_token_expires() -> None:
    async with StreamingServer() as server, server.events(server.user(), seconds=60) as events:
        began = now()
        await events.rest()
        assert events.types == ["ready", "reconnect"]
        assert events.seen[-1]["reason"] == "token_expired"
        assert 59 < (now() - began).total_seconds() < 61


@virtual_time_with_sockets
async def test_a_stream_of_a_lost_session_and_of_a_draining_server_ends_with_reconnect() -> None:
    async with StreamingServer() as server:
        ann, ben = server.user(), server.user()
        async with server.events(ann) as lost, server.events(ben) as drained:
            await lost.until("ready")
            await drained.until("ready")
            (await server.process.hub.session(ann)).lost()
            await lost.rest()
            await server.process.hub.drain(1)
            await drained.rest()
            assert (lost.seen[-1]["reason"], drained.seen[-1]["reason"]) == ("moved", "draining")
        async with server.events(ben) as refused:
            assert refused.response.status == 503


@virtual_time_with_sockets
async def test_streams_and_sockets_share_the_limit_of_connections() -> None:
    async with StreamingServer(limits=Limits(connections_per_user=2)) as server:
        user = server.user()
        async with server.socket(user) as socket, server.events(user) as events:
            reading = asyncio.ensure_future(socket.closed())
            await events.until("ready")
            async with server.events(user) as third:
                assert third.response.status == 429
            assert not reading.done()
            reading.cancel()


# In real time: the kernel acknowledges bytes independently of a test's virtual clock.
EVICTING = Limits(connections_per_user=3, probe_seconds=0.5, stream_age_seconds=0)


async def test_the_oldest_stream_is_evicted_for_a_new_device_and_resumes() -> None:
    """A proxy acknowledges what its dead client does not read, so the server cannot detect the dead client."""
    async with StreamingServer(limits=EVICTING) as server:
        user = server.user()
        async with server.socket(user) as socket, server.events(user) as oldest, server.events(user) as newer:
            reading = asyncio.ensure_future(socket.closed())
            cursor = (await oldest.until("ready"))["cursor"]
            async with server.events(user) as device:
                await device.until("ready")
                [*_, last] = await oldest.rest()
                assert (last["reason"], last["reconnect"]) == ("too_many_connections", True)
                assert server.process.hub.counts["connections"] == 3
                async with server.events(user, after=cursor) as again:
                    assert (await again.until("ready"))["resumed"]
                    assert (await newer.rest())[-1]["reason"] == "too_many_connections"
            assert not reading.done()
            reading.cancel()


async def test_a_stream_that_was_opened_just_now_is_not_evicted() -> None:
    async with StreamingServer(limits=replace(EVICTING, stream_age_seconds=1e6)) as server, AsyncExitStack() as stack:
        user = server.user()
        streams = [await stack.enter_async_context(server.events(user)) for _ in range(3)]
        async with server.events(user) as refused:
            assert refused.response.status == 429
        await server.process.send(user, "count")
        for events in streams:
            await events.until("turn.completed")


async def test_streams_without_acknowledged_bytes_are_closed_for_a_new_device_and_a_live_one_stays() -> None:
    limits = replace(EVICTING, stream_age_seconds=1e6)
    async with StreamingServer(limits=limits, reply=Reply(words=("x" * 200_000,))) as server, AsyncExitStack() as stack:
        user = server.user()
        alive = await stack.enter_async_context(server.events(user))
        for _ in range(2):
            await stack.enter_async_context(RawSocket.events(server, user, receive_buffer=4096))
        await server.process.send(user, "count")
        await alive.until("turn.completed")
        async with AsyncExitStack() as coming:
            while True:  # while their kernels still acknowledge bytes, the dead clients seem alive
                socket = await coming.enter_async_context(server.anonymous(headers=server.authorization(user)))
                if (await socket.until("ready", "error"))["type"] == "ready":
                    break
            assert server.process.hub.counts["connections"] <= 3
            await server.process.send(user, "count")
            await alive.until("turn.completed")


@virtual_time_with_sockets
async def test_the_stream_of_one_turn_is_never_evicted() -> None:
    async with StreamingServer(limits=Limits(connections_per_user=1, stream_age_seconds=0), reply=STUCK) as server:
        user = server.user()
        async with server.post(user, "count") as reply:
            await reply.until("message.delta")
            async with server.events(user) as refused:
                assert (refused.response.status, reply.response.status) == (429, 200)
            await server.process.hub.cancel(user, None)
            await reply.until("turn.cancelled")


@virtual_time_with_sockets
async def test_a_client_that_disconnects_is_detached_and_cancels_no_turn() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.events(user) as events:
            await events.until("ready")
            await server.process.send(user, "count")
            await events.until("message.delta")
        await asyncio.sleep(60)
        assert server.process.hub.counts["connections"] == 0
        [turn] = server.world.turns(user)
        assert (turn.status, server.world.reply_of(turn.id)) == ("completed", SPOKEN.text)


@virtual_time_with_sockets
async def test_a_slow_stream_is_aborted_and_delays_no_other_connection() -> None:
    limits = Limits(slow_consumer_bytes=256 * 1024, log_bytes=64 * 1024 * 1024)
    async with StreamingServer(limits=limits, reply=Reply(words=("x" * 16_000,) * 1200)) as server:
        user = server.user()
        async with server.events(user) as slow, server.socket(user) as quick:
            await slow.until("ready")
            await quick.send("message", client_message_id="m1", content="hello")
            await quick.until("turn.completed")
            assert server.process.hub.counts["connections"] == 1
            assert len(quick.text()) == 1200 * 16_000


@virtual_time_with_sockets
async def test_a_stream_whose_client_does_not_read_is_aborted_after_its_close() -> None:
    unlimited = Limits(slow_consumer_bytes=64 * 1024 * 1024, log_bytes=64 * 1024 * 1024)
    async with StreamingServer(limits=unlimited, reply=Reply(words=("x" * 16_000,) * 600)) as server:
        user = server.user()
        async with RawSocket.events(server, user, receive_buffer=4096), server.socket(user) as quick:
            await quick.send("message", client_message_id="m1", content="hello")
            await quick.until("turn.completed")
            assert server.process.hub.counts["connections"] == 2
            await server.process.hub.drain(1)
            await asyncio.sleep(server.limits.close_seconds + 1)
            assert server.process.hub.counts["connections"] == 0


# -- one turn's stream -----------------------------------------------------------------------------------------------


@virtual_time_with_sockets
async def test_a_message_streams_its_turn_to_the_end() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.post(user, "count") as events:
            [turn] = server.world.turns(user)
            assert events.response.headers["Location"] == f"/api/v1/chat/turns/{turn.id}"
            await events.rest()
            assert events.types == ["turn.started", "message.delta", "turn.completed"]
            assert events.text() == SPOKEN.text


@virtual_time_with_sockets
async def test_a_turns_stream_has_no_event_of_other_turns() -> None:
    async with StreamingServer() as server:
        user = server.user()
        await server.process.send(user, "another")
        async with server.post(user, "count") as events:
            await events.rest()
            assert events.types == ["turn.queued", "turn.started", "message.delta", "turn.completed"]
            assert len({event["turn_id"] for event in events.seen}) == 1


@pytest.mark.parametrize("log_events", [2000, 1])
@virtual_time_with_sockets
async def test_a_repeated_message_streams_the_whole_running_turn_even_if_its_events_are_trimmed(
    log_events: int,
) -> None:
    async with StreamingServer(reply=SLOW, limits=Limits(log_events=log_events)) as server:
        user = server.user()
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(server.post(user, "count"))
            await first.until("message.delta")
            await first.until("message.delta")
            second = await stack.enter_async_context(server.post(user, "count"))
            await second.rest()
            assert second.types == ["ready", "message.delta", "turn.completed"]
            ready = second.seen[0]
            assert (ready["turn"]["turn_id"], ready["queued"]) == (second.seen[-1]["turn_id"], [])
            assert ready["turn"]["text"]
            assert ready["turn"]["text"] + second.text() == SPOKEN.text
        assert server.world.sends("count") == 1


@virtual_time_with_sockets
async def test_a_repeated_message_that_is_queued_streams_no_event_of_the_running_turn() -> None:
    async with StreamingServer(reply=SLOW) as server:
        user = server.user()
        await server.process.send(user, "another")
        await server.process.hub.send(message(user, "count", "m1"))
        async with server.post(user, "count") as events:
            await events.rest()
            ready = events.seen[0]
            assert (ready["turn"], [turn["client_message_id"] for turn in ready["queued"]]) == (None, ["m1"])
            assert events.types == ["ready", "turn.started", "message.delta", "turn.completed"]
            assert events.text() == SPOKEN.text


@virtual_time_with_sockets
async def test_a_repeated_message_of_an_ended_turn_streams_its_terminal_event() -> None:
    async with StreamingServer() as server:
        user = server.user()
        for _ in range(2):
            async with server.post(user, "count") as events:
                await events.rest()
        assert events.types == ["turn.completed"]
        assert events.seen[0]["turn"]["message"]["content"] == SPOKEN.text
        assert (events.ids, server.world.sends("count")) == ([None], 1)


@virtual_time_with_sockets
async def test_a_repeated_message_of_a_retried_turn_streams_the_running_attempt() -> None:
    async with StreamingServer(reply=SLOW) as server:
        user = server.user()
        server.world.gateway.plan(Reply(words=("Oh ",), error=MODEL_FAILED))
        async with server.post(user, "count") as events:
            failed = (await events.rest())[-1]
        await server.process.retry(user, failed["turn_id"])
        async with server.post(user, "count") as events:
            await events.rest()
        assert (events.types[-1], events.text()) == ("turn.completed", SPOKEN.text)
        assert {event["attempt"] for event in events.seen[1:]} == {2}


@virtual_time_with_sockets
async def test_disconnecting_from_a_turns_stream_does_not_cancel_the_turn() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.post(user, "count") as events:
            await events.until("message.delta")
        await asyncio.sleep(60)
        [turn] = server.world.turns(user)
        assert (turn.status, server.world.reply_of(turn.id)) == ("completed", SPOKEN.text)


@virtual_time_with_sockets
async def test_a_turns_stream_ends_with_reconnect_when_the_token_expires_and_the_turn_runs_on() -> None:
    async with StreamingServer(reply=STUCK) as server:
        user = server.user()
        async with server.post(user, "count", seconds=30) as events:
            await events.rest()
            assert (events.types[-1], events.seen[-1]["reason"]) == ("reconnect", "token_expired")
        [turn] = server.world.turns(user)
        assert turn.status == "running"


@virtual_time_with_sockets
async def test_a_refused_message_is_a_problem_and_not_a_stream() -> None:
    async with StreamingServer(reply=STUCK) as server:
        user = server.user()
        await server.process.hub.send(message(user, "one", "m1"))
        async with server.post(user, "other", "m1") as events:
            assert (events.response.status, await events.response.json()) == (409, {"code": "id_conflict"})
        assert server.process.hub.counts["connections"] == 0
