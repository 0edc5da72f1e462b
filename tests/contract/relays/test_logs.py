"""What every relay keeps of a log: numbered events, the newest view, the running reply, and one writer."""

from dataclasses import replace

import pytest

from server.ports import Batch, FencedError, Outcome, Published, SharedState
from tests.contract.relays.worlds import Instance, RelayWorld, lease

USER = "5f0c6c1e-0000-4000-8000-000000000001"
VIEW = b'{"running":null,"waiting":[]}'


def batch(head: int, *events: bytes, fence: int = 1, epoch: str = "e1", drop: int = 0) -> Batch:
    return Batch(lease(USER, fence), epoch, head, drop, events)


async def begun(world: RelayWorld, fence: int = 1) -> Instance:
    """An instance that writes the user's log, in epoch e1."""
    instance = await world.instance()
    await instance.relay.take(lease(USER, fence), "e1")
    return instance


async def test_a_log_that_is_not_there_is_begun_once_and_then_found(world: RelayWorld) -> None:
    first, second = await world.instance(), await world.instance()
    found = await first.relay.look(USER, "e1")
    assert (found.fresh, found.intact, found.state) == (True, True, SharedState("e1"))
    found = await second.relay.look(USER, "e2")
    assert (found.fresh, found.intact, found.state) == (False, True, SharedState("e1"))


async def test_what_is_appended_is_read_by_number(world: RelayWorld) -> None:
    owner, other = await begun(world), await world.instance()
    assert await owner.relay.append([batch(0, b'{"a":1}', b'{"b":2}')]) == [Outcome.APPENDED]
    assert await owner.relay.append([batch(2, b'{"c":"\xc3\xa4"}')]) == [Outcome.APPENDED]
    assert (await other.relay.look(USER, "e2")).state == SharedState("e1", 3)
    assert await other.relay.read(USER, "e1", 0, 3) == (b'{"a":1}', b'{"b":2}', b'{"c":"\xc3\xa4"}')
    assert await other.relay.read(USER, "e1", 1, 2) == (b'{"b":2}',)
    assert await other.relay.read(USER, "another", 0, 3) is None
    assert await other.relay.read(USER, "e1", 0, 4) is None


async def test_a_batch_whose_answer_was_lost_is_not_appended_again(world: RelayWorld) -> None:
    owner = await begun(world)
    one = replace(batch(0, b"{}", b"{}"), text_of="t:1", text="Hello")
    assert await owner.relay.append([one]) == await owner.relay.append([one]) == [Outcome.APPENDED]
    assert (await owner.relay.look(USER, "e2")).state == SharedState("e1", 2, b"", "t:1", "Hello")


@pytest.mark.parametrize("wrong", [{"head": 0}, {"head": 5}, {"epoch": "another"}])
async def test_a_log_that_does_not_end_where_its_owner_believes_is_lost(
    world: RelayWorld, wrong: dict[str, object]
) -> None:
    owner = await begun(world)
    await owner.relay.append([batch(0, b"{}", b"{}", b"{}")])
    assert await owner.relay.append([replace(batch(3, b"{}", b"{}"), **wrong)]) == [Outcome.LOST]  # type: ignore[arg-type]
    assert (await owner.relay.look(USER, "e2")).state.head == 3


async def test_a_log_that_expired_is_lost(world: RelayWorld) -> None:
    owner = await begun(world)
    await owner.relay.append([batch(0, b"{}")])
    await world.forget(USER)
    assert await owner.relay.append([batch(1, b"{}")]) == [Outcome.LOST]


async def test_nobody_with_an_older_fence_writes(world: RelayWorld) -> None:
    old, new = await begun(world), await world.instance()
    await old.relay.append([batch(0, b"{}")])
    await new.relay.take(lease(USER, 2, "other"), "e2")
    assert await old.relay.append([batch(1, b"{}")]) == [Outcome.FENCED]
    with pytest.raises(FencedError):
        await old.relay.begin(lease(USER), SharedState("e3"))
    with pytest.raises(FencedError):
        await old.relay.take(lease(USER), "e3")
    assert (await new.relay.look(USER, "e4")).state == SharedState("e1", 1)
    assert await new.relay.append([batch(1, b"{}", fence=2)]) == [Outcome.APPENDED]


async def test_one_users_trouble_is_not_anothers(world: RelayWorld) -> None:
    owner, friend = await begun(world), "5f0c6c1e-0000-4000-8000-000000000002"
    await owner.relay.take(lease(friend), "f1")
    theirs = replace(batch(0, b"{}"), lease=lease(friend), epoch="f1")
    assert await owner.relay.append([batch(7, b"{}"), theirs]) == [Outcome.LOST, Outcome.APPENDED]
    assert await owner.relay.read(friend, "f1", 0, 1) == (b"{}",)
    assert await owner.relay.read(USER, "f1", 0, 1) is None


async def test_the_running_reply_grows_and_another_attempts_replaces_it(world: RelayWorld) -> None:
    owner = await begun(world)
    await owner.relay.append([replace(batch(0, b"{}"), text_of="t:1", text="One ")])
    await owner.relay.append([replace(batch(1, b"{}"), text_of="t:1", text="two", view=VIEW)])
    await owner.relay.append([batch(2, b"{}")])
    assert (await owner.relay.look(USER, "x")).state == SharedState("e1", 3, VIEW, "t:1", "One two")
    await owner.relay.append([replace(batch(3, b"{}"), text_of="t:2", text="Again")])
    assert (await owner.relay.look(USER, "x")).state == SharedState("e1", 4, VIEW, "t:2", "Again")


async def test_what_was_dropped_is_not_read_and_the_rest_is(world: RelayWorld) -> None:
    owner = await begun(world)
    await owner.relay.append([batch(0, b"1", b"2", b"3")])
    await owner.relay.append([batch(3, b"4", drop=2)])
    assert await owner.relay.read(USER, "e1", 1, 4) is None
    assert await owner.relay.read(USER, "e1", 2, 4) == (b"3", b"4")


async def test_a_log_begun_anew_has_only_its_state(world: RelayWorld) -> None:
    owner = await begun(world)
    await owner.relay.append([batch(0, b"1")])
    state = SharedState("e2", 40, VIEW, "t:1", "So far")
    await owner.relay.begin(lease(USER), state)
    assert (await owner.relay.look(USER, "x")).state == state
    assert await owner.relay.read(USER, "e1", 0, 1) is None
    assert await owner.relay.append([batch(40, b"41", epoch="e2")]) == [Outcome.APPENDED]
    assert await owner.relay.read(USER, "e2", 40, 41) == (b"41",)


async def test_followers_are_told_what_is_appended_and_begun_in_order(world: RelayWorld) -> None:
    owner, follower, stranger = await begun(world), await world.instance(), await world.instance()
    await follower.relay.follow(USER)
    await owner.relay.append([replace(batch(0, b'{"a":1}', b'{"b":2}'), view=VIEW)])
    await owner.relay.append([batch(2, b'{"c":3}')])
    await owner.relay.begin(lease(USER), SharedState("e2"))
    await follower.reader.until(lambda reader: reader.begun_logs)
    assert follower.reader.news == [
        (USER, Published("e1", 0, (b'{"a":1}', b'{"b":2}'), VIEW)),
        (USER, Published("e1", 2, (b'{"c":3}',), None)),
    ]
    assert (stranger.reader.news, owner.reader.news) == ([], [])


async def test_who_no_longer_follows_is_told_no_more(world: RelayWorld) -> None:
    owner, follower = await begun(world), await world.instance()
    other = "5f0c6c1e-0000-4000-8000-000000000002"
    await follower.relay.follow(USER)
    await follower.relay.follow(other)
    await owner.relay.take(lease(other), "f1")
    follower.relay.unfollow(USER)
    await owner.relay.append([batch(0, b"{}")])
    await owner.relay.append([replace(batch(0, b"{}"), lease=lease(other), epoch="f1")])
    await follower.reader.until(lambda reader: reader.news)
    assert [user for user, _ in follower.reader.news] == [other]
    await follower.relay.follow(USER)
    await owner.relay.append([batch(1, b"{}")])
    await follower.reader.until(lambda reader: len(reader.news) == 2)
