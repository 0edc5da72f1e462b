"""Server-Sent Events: a session's stream, and one turn's as the answer to its message."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from server.protocol.limits import Limits
from tests.fakes.agent import MODEL_FAILED, Reply
from tests.unit.sessions.world import SPOKEN, message
from tests.unit.streaming.raw import RawSocket
from tests.unit.streaming.server_fixture import Site
from tests.virtual_time import now, virtual_time_with_sockets

STUCK = Reply(words=("Well, ",), stuck=True)
SLOW = Reply(SPOKEN.words, first_token=1.0, per_word=1.0)


# -- the session's stream --------------------------------------------------------------------------------------------


@virtual_time_with_sockets
async def test_a_stream_shows_everything_with_its_cursor_as_id() -> None:
    async with Site() as site:
        user = site.user()
        async with site.events(user) as events:
            ready = await events.until("ready")
            assert (ready["user_id"], events.ids) == (user, [ready["cursor"]])
            await site.process.send(user, "count")
            end = await events.until("turn.completed")
            assert events.text() == end["turn"]["message"]["content"] == SPOKEN.text
            numbered = [(event, id_) for event, id_ in zip(events.seen, events.ids, strict=True) if "seq" in event]
            assert [id_ for _, id_ in numbered] == [f"{event['epoch']}:{event['seq']}" for event, _ in numbered]


@virtual_time_with_sockets
async def test_its_headers_keep_proxies_from_storing_or_holding_it() -> None:
    async with Site() as site, site.events(site.user()) as events:
        headers = events.response.headers
        assert headers["Content-Type"].startswith("text/event-stream")
        assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-store, no-transform", "no")


@pytest.mark.parametrize("manner", ["after", "last_event_id"])
@virtual_time_with_sockets
async def test_a_stream_resumes_from_every_cursor(manner: str) -> None:
    async with Site() as site:
        user = site.user()
        async with site.events(user) as events:
            await events.until("ready")
            await site.process.send(user, "count")
            await events.until("turn.completed")
        cursors = [id_ for id_ in events.ids if id_ is not None]
        before = ""
        for seen, cursor in enumerate(cursors[:-1]):
            before = "".join(event.get("text", "") for event in events.seen[: seen + 1])
            place = {"after": cursor} if manner == "after" else {"last_event_id": cursor}
            async with site.events(user, **place) as resumed:  # type: ignore[arg-type]
                assert (await resumed.until("ready"))["resumed"]
                await resumed.until("turn.completed")
                assert before + resumed.text() == SPOKEN.text


@virtual_time_with_sockets
async def test_an_unknown_cursor_is_not_resumed_and_a_malformed_one_is_refused() -> None:
    async with Site() as site:
        user = site.user()
        async with site.events(user, last_event_id="unknown:3") as events:
            assert not (await events.until("ready"))["resumed"]
        async with site.events(user, last_event_id="nonsense") as events:
            assert events.response.status == 400


@virtual_time_with_sockets
async def test_a_silent_stream_carries_a_comment_every_25_seconds() -> None:
    async with Site() as site:
        user = site.user()
        async with site.events(user) as events:
            await events.until("ready")
            rest = asyncio.ensure_future(events.until("turn.started"))
            await asyncio.sleep(80)
            await site.process.send(user, "count")
            await rest
            assert events.comments == 3


@virtual_time_with_sockets
async def test_a_stream_asks_to_reconnect_before_proxies_cut_it() -> None:
    async with Site() as site, site.events(site.user()) as events:
        began = now()
        await events.rest()
        assert events.types == ["ready", "reconnect"]
        assert 12 * 60 < (now() - began).total_seconds() < 14 * 60


@virtual_time_with_sockets
async def test_a_stream_asks_to_reconnect_when_its_token_expires() -> None:
    async with Site() as site, site.events(site.user(), seconds=60) as events:
        began = now()
        await events.rest()
        assert events.types == ["ready", "reconnect"]
        assert events.seen[-1]["reason"] == "token_expired"
        assert 59 < (now() - began).total_seconds() < 61


@virtual_time_with_sockets
async def test_a_stream_of_a_lost_session_and_of_a_draining_server_ends_with_reconnect() -> None:
    async with Site() as site:
        ann, ben = site.user(), site.user()
        async with site.events(ann) as lost, site.events(ben) as drained:
            await lost.until("ready")
            await drained.until("ready")
            (await site.process.hub.session(ann)).lost()
            await lost.rest()
            await site.process.hub.drain(1)
            await drained.rest()
            assert (lost.seen[-1]["reason"], drained.seen[-1]["reason"]) == ("moved", "draining")
        async with site.events(ben) as refused:
            assert refused.response.status == 503


@virtual_time_with_sockets
async def test_streams_and_sockets_share_the_limit_of_connections() -> None:
    async with Site(limits=Limits(connections_per_user=2)) as site:
        user = site.user()
        async with site.socket(user) as socket, site.events(user) as events:
            reading = asyncio.ensure_future(socket.closed())
            await events.until("ready")
            async with site.events(user) as third:
                assert third.response.status == 429
            assert not reading.done()
            reading.cancel()


# In real time: the systems at both ends of a line acknowledge what arrives, whatever a test's clock says.
PROMPT = Limits(connections_per_user=3, proof_seconds=0.5, stream_age_seconds=0)


async def test_the_oldest_stream_gives_way_to_a_new_device_and_resumes() -> None:
    """A proxy takes what its vanished client does not, so nothing shows that nobody reads."""
    async with Site(limits=PROMPT) as site:
        user = site.user()
        async with site.socket(user) as socket, site.events(user) as oldest, site.events(user) as newer:
            reading = asyncio.ensure_future(socket.closed())
            cursor = (await oldest.until("ready"))["cursor"]
            async with site.events(user) as device:
                await device.until("ready")
                [*_, told] = await oldest.rest()
                assert (told["reason"], told["reconnect"]) == ("too_many_connections", True)
                assert site.process.hub.counts["connections"] == 3
                async with site.events(user, after=cursor) as again:
                    assert (await again.until("ready"))["resumed"]
                    assert (await newer.rest())[-1]["reason"] == "too_many_connections"
            assert not reading.done()
            reading.cancel()


async def test_a_stream_that_was_opened_just_now_does_not_give_way() -> None:
    async with Site(limits=replace(PROMPT, stream_age_seconds=1e6)) as site, AsyncExitStack() as stack:
        user = site.user()
        streams = [await stack.enter_async_context(site.events(user)) for _ in range(3)]
        async with site.events(user) as refused:
            assert refused.response.status == 429
        await site.process.send(user, "count")
        for events in streams:
            await events.until("turn.completed")


async def test_streams_of_clients_that_take_nothing_give_way_and_one_that_does_stays() -> None:
    limits = replace(PROMPT, stream_age_seconds=1e6)
    async with Site(limits=limits, reply=Reply(words=("x" * 200_000,))) as site, AsyncExitStack() as stack:
        user = site.user()
        alive = await stack.enter_async_context(site.events(user))
        for _ in range(2):
            await stack.enter_async_context(RawSocket.events(site, user, receive_buffer=4096))
        await site.process.send(user, "count")
        await alive.until("turn.completed")
        async with AsyncExitStack() as coming:
            while True:  # while their systems still take something, they seem to be there
                socket = await coming.enter_async_context(site.anonymous(headers=site.authorization(user)))
                if (await socket.until("ready", "error"))["type"] == "ready":
                    break
            assert site.process.hub.counts["connections"] <= 3
            await site.process.send(user, "count")
            await alive.until("turn.completed")


@virtual_time_with_sockets
async def test_a_stream_that_answers_a_message_never_gives_way() -> None:
    async with Site(limits=Limits(connections_per_user=1, stream_age_seconds=0), reply=STUCK) as site:
        user = site.user()
        async with site.post(user, "count") as reply:
            await reply.until("message.delta")
            async with site.events(user) as refused:
                assert (refused.response.status, reply.response.status) == (429, 200)
            await site.process.hub.cancel(user, None)
            await reply.until("turn.cancelled")


@virtual_time_with_sockets
async def test_a_reader_that_leaves_leaves_nothing_behind_and_cancels_nothing() -> None:
    async with Site() as site:
        user = site.user()
        async with site.events(user) as events:
            await events.until("ready")
            await site.process.send(user, "count")
            await events.until("message.delta")
        await asyncio.sleep(60)
        assert site.process.hub.counts["connections"] == 0
        [turn] = site.world.turns(user)
        assert (turn.status, site.world.reply_of(turn.id)) == ("completed", SPOKEN.text)


@virtual_time_with_sockets
async def test_a_slow_reader_is_cut_off_and_delays_nobody() -> None:
    limits = Limits(slow_consumer_bytes=256 * 1024, log_bytes=64 * 1024 * 1024)
    async with Site(limits=limits, reply=Reply(words=("x" * 16_000,) * 1200)) as site:
        user = site.user()
        async with site.events(user) as slow, site.socket(user) as quick:
            await slow.until("ready")
            await quick.say("message", client_message_id="m1", content="hello")
            await quick.until("turn.completed")
            assert site.process.hub.counts["connections"] == 1
            assert len(quick.text()) == 1200 * 16_000


@virtual_time_with_sockets
async def test_a_reader_that_stopped_reading_does_not_outlive_the_end_of_its_stream() -> None:
    roomy = Limits(slow_consumer_bytes=64 * 1024 * 1024, log_bytes=64 * 1024 * 1024)
    async with Site(limits=roomy, reply=Reply(words=("x" * 16_000,) * 600)) as site:
        user = site.user()
        async with RawSocket.events(site, user, receive_buffer=4096), site.socket(user) as quick:
            await quick.say("message", client_message_id="m1", content="hello")
            await quick.until("turn.completed")
            assert site.process.hub.counts["connections"] == 2
            await site.process.hub.drain(1)
            await asyncio.sleep(site.limits.goodbye_seconds + 1)
            assert site.process.hub.counts["connections"] == 0


# -- one turn's stream -----------------------------------------------------------------------------------------------


@virtual_time_with_sockets
async def test_a_message_is_answered_with_its_turn_to_the_end() -> None:
    async with Site() as site:
        user = site.user()
        async with site.post(user, "count") as events:
            [turn] = site.world.turns(user)
            assert events.response.headers["Location"] == f"/api/v1/chat/turns/{turn.id}"
            await events.rest()
            assert events.types == ["turn.started", "message.delta", "turn.completed"]
            assert events.text() == SPOKEN.text


@virtual_time_with_sockets
async def test_the_answer_holds_nothing_of_other_turns() -> None:
    async with Site() as site:
        user = site.user()
        await site.process.send(user, "another")
        async with site.post(user, "count") as events:
            await events.rest()
            assert events.types == ["turn.queued", "turn.started", "message.delta", "turn.completed"]
            assert len({event["turn_id"] for event in events.seen}) == 1


@pytest.mark.parametrize("kept", [2000, 1])
@virtual_time_with_sockets
async def test_a_repeated_message_shows_the_whole_running_turn_however_little_is_kept_of_it(kept: int) -> None:
    async with Site(reply=SLOW, limits=Limits(log_events=kept)) as site:
        user = site.user()
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(site.post(user, "count"))
            await first.until("message.delta")
            await first.until("message.delta")
            second = await stack.enter_async_context(site.post(user, "count"))
            await second.rest()
            assert second.types == ["ready", "message.delta", "turn.completed"]
            ready = second.seen[0]
            assert (ready["turn"]["turn_id"], ready["queued"]) == (second.seen[-1]["turn_id"], [])
            assert ready["turn"]["text"]
            assert ready["turn"]["text"] + second.text() == SPOKEN.text
        assert site.world.sends("count") == 1


@virtual_time_with_sockets
async def test_a_repeated_message_that_waits_is_answered_with_nothing_of_the_turn_that_runs() -> None:
    async with Site(reply=SLOW) as site:
        user = site.user()
        await site.process.send(user, "another")
        await site.process.hub.send(message(user, "count", "m1"))
        async with site.post(user, "count") as events:
            await events.rest()
            ready = events.seen[0]
            assert (ready["turn"], [turn["client_message_id"] for turn in ready["queued"]]) == (None, ["m1"])
            assert events.types == ["ready", "turn.started", "message.delta", "turn.completed"]
            assert events.text() == SPOKEN.text


@virtual_time_with_sockets
async def test_a_repeated_message_of_an_ended_turn_is_answered_with_its_end() -> None:
    async with Site() as site:
        user = site.user()
        for _ in range(2):
            async with site.post(user, "count") as events:
                await events.rest()
        assert events.types == ["turn.completed"]
        assert events.seen[0]["turn"]["message"]["content"] == SPOKEN.text
        assert (events.ids, site.world.sends("count")) == ([None], 1)


@virtual_time_with_sockets
async def test_a_repeated_message_of_a_retried_turn_follows_the_attempt_under_way() -> None:
    async with Site(reply=SLOW) as site:
        user = site.user()
        site.world.gateway.plan(Reply(words=("Oh ",), error=MODEL_FAILED))
        async with site.post(user, "count") as events:
            failed = (await events.rest())[-1]
        await site.process.retry(user, failed["turn_id"])
        async with site.post(user, "count") as events:
            await events.rest()
        assert (events.types[-1], events.text()) == ("turn.completed", SPOKEN.text)
        assert {event["attempt"] for event in events.seen[1:]} == {2}


@virtual_time_with_sockets
async def test_leaving_the_answer_cancels_nothing() -> None:
    async with Site() as site:
        user = site.user()
        async with site.post(user, "count") as events:
            await events.until("message.delta")
        await asyncio.sleep(60)
        [turn] = site.world.turns(user)
        assert (turn.status, site.world.reply_of(turn.id)) == ("completed", SPOKEN.text)


@virtual_time_with_sockets
async def test_an_answer_that_takes_too_long_asks_to_reconnect_and_the_turn_goes_on() -> None:
    async with Site(reply=STUCK) as site:
        user = site.user()
        async with site.post(user, "count", seconds=30) as events:
            await events.rest()
            assert (events.types[-1], events.seen[-1]["reason"]) == ("reconnect", "token_expired")
        [turn] = site.world.turns(user)
        assert turn.status == "running"


@virtual_time_with_sockets
async def test_a_refused_message_is_a_plain_answer_and_no_stream() -> None:
    async with Site(reply=STUCK) as site:
        user = site.user()
        await site.process.hub.send(message(user, "one", "m1"))
        async with site.post(user, "other", "m1") as events:
            assert (events.response.status, await events.response.json()) == (409, {"code": "id_conflict"})
        assert site.process.hub.counts["connections"] == 0
