"""What every backend keeps of a replica: numbered events, the newest view, the running reply, and one writer."""

from dataclasses import replace
from typing import Any

import pytest

from server.ports import Append, FencedError, Published, Refusal, ReplicaState, Rewrite
from tests.contract.replicas.worlds import Instance, ReplicaWorld, lease

USER = "5f0c6c1e-0000-4000-8000-000000000001"
FRIEND = "5f0c6c1e-0000-4000-8000-000000000002"
VIEW = b'{"running":null,"waiting":[]}'


def append(after: int, *events: bytes, fence: int = 1, epoch: str = "e1", **more: Any) -> Append:
    return Append(lease(USER, fence), epoch, after, events, **more)


def state(head: int = 0, *, fence: int = 1, epoch: str = "e1", **more: Any) -> ReplicaState:
    return ReplicaState(fence, epoch, head, **more)


def rewrite(stands: ReplicaState, *events: bytes, user_id: str = USER) -> Rewrite:
    return Rewrite(lease(user_id, stands.fence), stands, events)


async def written(world: ReplicaWorld, *events: bytes) -> Instance:
    """An instance that owns the user's replica, in epoch e1, with these events."""
    owner = await world.instance()
    assert await owner.replicas.rewrite([rewrite(state(view=VIEW))]) == [0]
    if events:
        assert await owner.replicas.append([append(0, *events)]) == [len(events)]
    return owner


async def test_reading_what_is_not_there_creates_nothing(world: ReplicaWorld) -> None:
    first, second = await world.instance(), await world.instance()
    assert await first.replicas.state(USER) is None
    assert await first.replicas.take_over(lease(USER)) is None
    assert await second.replicas.state(USER) is None
    assert await second.replicas.read(USER, "e1", 0, 1) is None


async def test_an_append_without_a_replica_or_in_another_epoch_is_absent(world: ReplicaWorld) -> None:
    owner = await world.instance()
    assert await owner.replicas.append([append(0, b"{}")]) == [Refusal.ABSENT]
    await owner.replicas.rewrite([rewrite(state())])
    assert await owner.replicas.append([append(0, b"{}", epoch="another")]) == [Refusal.ABSENT]
    await world.forget(USER)
    assert await owner.replicas.append([append(0)]) == [Refusal.ABSENT]


async def test_what_is_appended_is_read_by_number(world: ReplicaWorld) -> None:
    owner, other = await written(world, b'{"a":1}', b'{"b":2}'), await world.instance()
    assert await owner.replicas.append([append(2, b'{"c":"\xc3\xa4"}')]) == [3]
    assert await other.replicas.state(USER) == state(3, view=VIEW)
    assert await other.replicas.read(USER, "e1", 0, 3) == (b'{"a":1}', b'{"b":2}', b'{"c":"\xc3\xa4"}')
    assert await other.replicas.read(USER, "e1", 1, 2) == (b'{"b":2}',)
    assert await other.replicas.read(USER, "another", 0, 3) is None
    assert await other.replicas.read(USER, "e1", 0, 4) is None


@pytest.mark.parametrize("after", [0, 1, 2, 5])
async def test_an_append_that_does_not_fit_changes_nothing_and_says_where_the_replica_stands(
    world: ReplicaWorld, after: int
) -> None:
    """Its answer was lost and it is repeated, or the backend has lost its last second."""
    owner = await written(world, b"1", b"2", b"3")
    answer = await owner.replicas.append([append(after, b"x", b"y", view=b"{}", text_of="t:1", text="no")])
    assert answer == [3]
    assert await owner.replicas.state(USER) == state(3, view=VIEW)
    assert await owner.replicas.read(USER, "e1", 0, 3) == (b"1", b"2", b"3")


async def test_an_append_without_events_shows_the_fence_and_finds_the_head(world: ReplicaWorld) -> None:
    owner, follower = await written(world, b"1"), await world.instance()
    await follower.replicas.follow(USER)
    assert await owner.replicas.append([append(1, fence=4)]) == [1]
    assert await follower.replicas.state(USER) == state(1, fence=4, view=VIEW)
    await follower.listener.until(lambda listener: listener.appended)
    assert follower.listener.appended == [(USER, Published(4, "e1", 1, (), None))]


async def test_an_owner_with_an_older_fence_writes_nothing(world: ReplicaWorld) -> None:
    old, new = await written(world, b"1"), await world.instance()
    assert await new.replicas.take_over(lease(USER, 2)) == state(1, view=VIEW)
    assert await old.replicas.append([append(1, b"2")]) == [Refusal.FENCED]
    assert await old.replicas.append([append(1)]) == [Refusal.FENCED]
    assert await old.replicas.rewrite([rewrite(state(7, epoch="e2"))]) == [Refusal.FENCED]
    with pytest.raises(FencedError):
        await old.replicas.take_over(lease(USER))
    assert await new.replicas.state(USER) == state(1, fence=2, view=VIEW)
    assert await new.replicas.append([append(1, b"2", fence=2)]) == [2]


async def test_an_append_under_a_newer_fence_fences_the_older_owner(world: ReplicaWorld) -> None:
    """It goes on where the last owner released the session, and need not take it over first."""
    old, new = await written(world, b"1"), await world.instance()
    assert await new.replicas.append([append(1, b"2", fence=2)]) == [2]
    assert await old.replicas.append([append(2, b"3")]) == [Refusal.FENCED]


async def test_one_users_trouble_is_not_anothers(world: ReplicaWorld) -> None:
    owner = await written(world)
    await owner.replicas.rewrite([rewrite(state(epoch="f1"), user_id=FRIEND)])
    theirs = replace(append(0, b"{}", epoch="f1"), lease=lease(FRIEND))
    mine = append(7, b"{}")
    missing = replace(append(0, b"{}"), lease=lease("5f0c6c1e-0000-4000-8000-000000000003"))
    assert await owner.replicas.append([mine, missing, theirs]) == [0, Refusal.ABSENT, 1]
    assert await owner.replicas.read(FRIEND, "f1", 0, 1) == (b"{}",)


async def test_many_sessions_are_appended_in_one_call(world: ReplicaWorld) -> None:
    owner = await world.instance()
    users = [f"5f0c6c1e-0000-4000-8000-{number:012d}" for number in range(150)]
    await owner.replicas.rewrite([rewrite(state(), user_id=user) for user in users])
    event = b'{"text":"' + b"x" * 5_000 + b'"}'
    appends = [replace(append(0, event, event), lease=lease(user)) for user in users]
    assert await owner.replicas.append(appends) == [2] * 150
    assert await owner.replicas.read(users[-1], "e1", 0, 2) == (event, event)


async def test_the_running_reply_grows_and_another_attempts_replaces_it(world: ReplicaWorld) -> None:
    owner = await written(world)
    await owner.replicas.append([append(0, b"{}", text_of="t:1", text="One ")])
    await owner.replicas.append([append(1, b"{}", text_of="t:1", text="two\0", view=b"{}")])
    await owner.replicas.append([append(2, b"{}")])
    assert await owner.replicas.state(USER) == state(3, view=b"{}", text_of="t:1", text="One two\0")
    await owner.replicas.append([append(3, b"{}", text_of="t:2", text="Again")])
    assert await owner.replicas.state(USER) == state(4, view=b"{}", text_of="t:2", text="Again")


async def test_what_was_trimmed_is_not_read_and_the_rest_is(world: ReplicaWorld) -> None:
    owner = await written(world, b"1", b"2", b"3")
    await owner.replicas.append([append(3, b"4", trim=2)])
    assert await owner.replicas.read(USER, "e1", 1, 4) is None
    assert await owner.replicas.read(USER, "e1", 2, 4) == (b"3", b"4")


async def test_a_rewrite_replaces_everything(world: ReplicaWorld) -> None:
    owner = await written(world, b"1", b"2")
    stands = state(40, epoch="e2", view=VIEW, text_of="t:1", text="So far\n\0{}\0")
    assert await owner.replicas.rewrite([rewrite(stands, b"39", b"40")]) == [40]
    assert await owner.replicas.state(USER) == stands
    assert await owner.replicas.read(USER, "e1", 0, 1) is None
    assert await owner.replicas.append([append(40, b"41", epoch="e2")]) == [41]
    assert await owner.replicas.read(USER, "e2", 38, 41) == (b"39", b"40", b"41")
    assert await owner.replicas.read(USER, "e2", 37, 41) is None


async def test_followers_receive_what_is_appended_and_rewritten_in_order(world: ReplicaWorld) -> None:
    owner, follower, stranger = await written(world), await world.instance(), await world.instance()
    await follower.replicas.follow(USER)
    await owner.replicas.append([append(0, b'{"a":1}', b'{"b":2}', view=VIEW)])
    await owner.replicas.append([append(2, b'{"c":3}')])
    stands = state(3, epoch="e2", view=VIEW, text_of="t:1", text="So far\n\nand on")
    await owner.replicas.rewrite([rewrite(stands, b'{"c":3}')])
    await owner.replicas.append([append(3, b'{"d":4}', epoch="e2")])
    await follower.listener.until(lambda listener: len(listener.appended) == 4)
    assert follower.listener.appended == [
        (USER, Published(1, "e1", 0, (b'{"a":1}', b'{"b":2}'), VIEW)),
        (USER, Published(1, "e1", 2, (b'{"c":3}',), None)),
        (USER, Published(1, "e2", 2, (b'{"c":3}',), VIEW, stands)),
        (USER, Published(1, "e2", 3, (b'{"d":4}',), None)),
    ]
    assert (stranger.listener.appended, owner.listener.appended) == ([], [])


async def test_who_no_longer_follows_receives_no_more(world: ReplicaWorld) -> None:
    owner, follower = await written(world), await world.instance()
    await follower.replicas.follow(USER)
    await follower.replicas.follow(FRIEND)
    await owner.replicas.rewrite([rewrite(state(epoch="f1"), user_id=FRIEND)])
    await follower.listener.until(lambda listener: listener.appended)
    follower.replicas.unfollow(USER)
    await owner.replicas.append([append(0, b"{}")])
    await owner.replicas.append([replace(append(0, b"{}", epoch="f1"), lease=lease(FRIEND))])
    await follower.listener.until(lambda listener: len(listener.appended) == 2)
    assert [user for user, _ in follower.listener.appended] == [FRIEND, FRIEND]
    await follower.replicas.follow(USER)
    await owner.replicas.append([append(1, b"{}")])
    await follower.listener.until(lambda listener: len(listener.appended) == 3)
