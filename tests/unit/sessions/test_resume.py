"""Invariants of reading: any cursor, any moment, any number of drops give the same text; the end has the last word."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.protocol.cursors import EventCursor
from server.protocol.limits import Limits
from tests.fakes.agent import MODEL_FAILED, Reply, Tool
from tests.unit.sessions.device import Device
from tests.unit.sessions.world import SPOKEN, World
from tests.virtual_time import VirtualTimeLoop, virtual_time

CHATTY = Reply(words=("a ", "b ", "c "), reasoning=("think ", "more "), tools=(Tool("search"),), per_word=0.1)


@virtual_time
async def test_a_client_that_resumes_from_any_cursor_reads_the_same_text() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        steady = await process.device(user)
        world.gateway.plan(CHATTY, Reply(words=("Oh ",), error=MODEL_FAILED), Reply(words=("x ", "y "), per_word=0.1))
        turns = [(await process.send(user, f"message {number}")).turn for number in range(3)]
        for turn in turns:
            await steady.until_end(turn.id)
        epoch, head = steady.cursor.epoch, steady.cursor.seq
        for seq in range(head + 1):
            device = Device()
            device.events = [event for event in steady.events if event["seq"] <= seq]
            attachment = await device.join(process.hub, user, EventCursor(epoch, seq))
            assert attachment.resumed
            assert device.cursor == steady.cursor
            assert _texts(device.events) == _texts(steady.events)
            device.leave()


def _texts(events: list[dict[str, Any]]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for event in events:
        if event["type"] == "message.delta":
            texts[event["turn_id"]] = texts.get(event["turn_id"], "") + event["text"]
    return texts


@settings(max_examples=60, deadline=None)
@given(
    drops=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6), st.sampled_from(("cursor", "no cursor", "stale"))))
)
def test_a_device_that_drops_at_any_moments_shows_the_same_text(drops: list[tuple[int, int, str]]) -> None:
    """Each drop: after so many tenths of a second, for so many, coming back with its cursor, none, or an old one."""

    async def play() -> None:
        async with World(reply=Reply(words=tuple(f"w{n} " for n in range(40)), per_word=0.1)) as world:
            process, user = await world.process(), world.user()
            device = await process.device(user)
            turn = (await process.send(user, "talk")).turn
            for after, away, manner in drops:
                await asyncio.sleep(after / 10)
                cursor = {"cursor": device.cursor, "no cursor": None, "stale": EventCursor("an-older-epoch", 3)}[manner]
                device.leave()
                await asyncio.sleep(away / 10)
                await device.join(process.hub, user, cursor)
            if not world.turn(turn.id).status.ended:
                end = await device.until_end(turn.id)
                assert device.streamed(turn.id) == end["turn"]["message"]["content"]

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(play())


@virtual_time
async def test_a_device_that_was_behind_reads_waiting_words_as_one_frame() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        quick, behind = await process.device(user), Device(dozing=True)
        await behind.join(process.hub, user)
        turn = (await process.send(user, "count")).turn
        await quick.until_end(turn.id)
        behind.read()
        [words] = [event for event in behind.events if event["type"] == "message.delta"]
        assert (words["first_seq"], words["seq"], words["text"]) == (2, 5, SPOKEN.text)


@virtual_time
async def test_a_device_that_joins_in_the_middle_is_given_the_text_so_far() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        first = await process.device(user)
        turn = (await process.send(user, "count")).turn
        waiting = (await process.send(user, "later")).turn
        await first.until_text(turn.id, "One two ")
        second = Device()
        attachment = await second.join(process.hub, user)
        shown = attachment.snapshot.turn()
        assert shown is not None
        assert (shown["turn_id"], shown["text"], shown["user_message"]["content"]) == (turn.id, "One two ", "count")
        assert [queued["id"] for queued in attachment.snapshot.queued] == [waiting.id]
        await second.until_end(turn.id)
        assert second.streamed(turn.id) == SPOKEN.text


@pytest.mark.parametrize("cursor", ["another-epoch:0", "another-epoch:3", "{epoch}:99"])
@virtual_time
async def test_a_cursor_of_another_epoch_or_of_the_future_is_not_resumed(cursor: str) -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        text = cursor.format(epoch=device.cursor.epoch)
        attachment = await Device().join(process.hub, user, EventCursor.parse(text))
        assert not attachment.resumed


@virtual_time
async def test_a_cursor_older_than_the_log_is_not_resumed_and_the_running_text_is_still_whole() -> None:
    async with World(limits=Limits(log_events=5), reply=Reply(words=("word ",) * 50, per_word=0.1)) as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        old = device.cursor
        turn = (await process.send(user, "talk")).turn
        await device.until_text(turn.id, "word " * 20)
        late = Device()
        attachment = await late.join(process.hub, user, old)
        assert not attachment.resumed
        await late.until_end(turn.id)
        assert late.streamed(turn.id) == world.reply_of(turn.id)


@virtual_time
async def test_the_terminal_message_is_authoritative() -> None:
    """The agent's record says something else than its stream did: the record is stored, and told in the end."""
    async with World() as world:
        process, user = await world.process(), world.user()
        device = await process.device(user)
        world.gateway.plan(Reply(SPOKEN.words, per_word=0.1, breaks_after=3))
        turn = (await process.send(user, "count")).turn
        await device.until_text(turn.id, "One two ")
        run = world.gateway.sent[0]
        run.events[1].text = "Eins "  # type: ignore[union-attr]
        end = await device.until_end(turn.id)
        assert end["turn"]["message"]["content"] == world.reply_of(turn.id) == "Eins two three four."
        assert device.text(turn.id) == world.reply_of(turn.id)


@virtual_time
async def test_after_a_crash_a_client_begins_anew_and_the_end_is_published_once() -> None:
    async with World() as world:
        first, user = await world.process("a"), world.user()
        device = await first.device(user)
        turn = (await first.send(user, "count")).turn
        await device.until_text(turn.id, "One two ")
        cursor = device.cursor
        first.kill()
        device.leave()
        second = await world.process("b")
        attachment = await device.join(second.hub, user, cursor)
        assert not attachment.resumed
        await device.until_end(turn.id)
        assert (device.streamed(turn.id), len(device.ends)) == (SPOKEN.text, 1)
