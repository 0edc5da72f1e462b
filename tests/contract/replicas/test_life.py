"""How every backend becomes unavailable, forgets and recovers, and what each instance is called with."""

import asyncio
from dataclasses import replace

import pytest

from server.ports import (
    Announcement,
    Append,
    ControlMessage,
    Refusal,
    ReplicaState,
    ReplicasUnavailableError,
    Rewrite,
)
from tests.contract.replicas.worlds import RedisWorld, ReplicaWorld, lease

USER = "5f0c6c1e-0000-4000-8000-000000000001"


def append(after: int, *events: bytes) -> Append:
    return Append(lease(USER), "e1", after, events)


NEW = Rewrite(lease(USER), ReplicaState(1, "e1"))


async def test_a_control_message_reaches_every_instance_but_its_sender(world: ReplicaWorld) -> None:
    sender, other = await world.instance(), await world.instance()
    messages = [
        ControlMessage("refresh", USER),
        ControlMessage("unowned", USER),
        ControlMessage(
            "announce", USER, event=Announcement("usage.settled", {"cost": "0.1", "usage": None}, "a turn", 2)
        ),
    ]
    messages.append(ControlMessage("refresh", USER, ended="a turn"))
    for message in messages:
        await sender.replicas.broadcast(message)
    await other.listener.until(lambda listener: len(listener.messages) == 4)
    assert (other.listener.messages, sender.listener.messages) == (messages, [])


async def test_after_a_short_outage_the_listener_has_missed_something(world: ReplicaWorld) -> None:
    instance = await world.instance()
    await instance.replicas.follow(USER)
    await world.save()
    await world.crash()
    await world.start()
    await instance.listener.until(lambda listener: listener.states[-1:] in (["missed"], ["recovered"]))
    assert instance.listener.states in (["missed"], ["unavailable", "recovered"])
    other = await world.instance()
    await other.replicas.rewrite([NEW])
    await other.replicas.append([append(0, b"{}")])
    await instance.listener.until(lambda listener: listener.appended)


async def test_a_long_outage_is_reported_and_so_is_the_recovery(world: ReplicaWorld) -> None:
    instance = await world.instance()
    await world.crash()
    with pytest.raises(ReplicasUnavailableError):
        await instance.replicas.state(USER)
    await instance.listener.until(lambda listener: listener.states == ["unavailable"])
    assert not instance.replicas.is_available
    await world.start()
    await instance.listener.until(lambda listener: listener.states == ["unavailable", "recovered"])
    assert instance.replicas.is_available
    assert await instance.replicas.state(USER) is None


async def test_an_instance_starts_without_it_and_is_called_when_it_is_there(world: ReplicaWorld) -> None:
    await world.crash()
    instance = await world.instance()
    assert not instance.replicas.is_available
    await world.start()
    await instance.listener.until(lambda listener: listener.states[-1:] == ["recovered"])
    await instance.replicas.follow(USER)


async def test_a_failed_call_can_report_it_unavailable_at_once(world: ReplicaWorld) -> None:
    instance = await world.instance()
    instance.replicas.report_unavailable()
    assert instance.listener.states == ["unavailable"]
    instance.replicas.report_unavailable()
    await instance.listener.until(lambda listener: listener.states == ["unavailable", "recovered"])


async def test_a_backend_that_lost_its_last_second_says_where_it_stands(world: ReplicaWorld) -> None:
    owner = await world.instance()
    await owner.replicas.rewrite([NEW])
    await owner.replicas.append([append(0, b"1", b"2")])
    await world.save()
    await owner.replicas.append([append(2, b"3")])
    await world.crash()
    await world.start()
    await owner.listener.until(lambda listener: listener.states[-1:] in (["missed"], ["recovered"]))
    assert await owner.replicas.append([append(3, b"4")]) == [2]
    assert await owner.replicas.append([append(2, b"3", b"4")]) == [4]
    assert await owner.replicas.read(USER, "e1", 0, 4) == (b"1", b"2", b"3", b"4")


async def test_a_full_backend_is_unavailable_until_it_has_capacity(world: ReplicaWorld) -> None:
    owner = await world.instance()
    await owner.replicas.rewrite([NEW])
    await world.fill()
    with pytest.raises(ReplicasUnavailableError):
        await owner.replicas.append([append(0, b"1")])
    owner.replicas.report_unavailable()
    await world.accept_writes()
    await owner.listener.until(lambda listener: listener.states == ["unavailable", "recovered"])
    assert await owner.replicas.append([append(0, b"1")]) == [1]


async def test_a_crowd_that_comes_at_once_is_no_outage(world: ReplicaWorld) -> None:
    instance = await world.instance()
    users = [f"5f0c6c1e-0000-4000-8000-{number:012d}" for number in range(500)]
    await asyncio.gather(*(instance.replicas.follow(user) for user in users))
    found = await asyncio.gather(*(instance.replicas.state(user) for user in users))
    assert found == [None] * 500
    assert instance.listener.states == []


async def test_deployments_that_share_a_redis_do_not_hear_each_other(redis_only: RedisWorld) -> None:
    staging, production = await redis_only.instance("staging"), await redis_only.instance("production")
    await staging.replicas.rewrite([NEW])
    await staging.replicas.append([append(0, b"{}")])
    await staging.replicas.broadcast(ControlMessage("refresh", USER))
    assert await production.replicas.state(USER) is None
    neighbour = await redis_only.instance("production")
    await neighbour.replicas.broadcast(ControlMessage("unowned", USER))
    await production.listener.until(lambda listener: listener.messages)
    assert production.listener.messages == [ControlMessage("unowned", USER)]


async def test_replicas_expire_unless_they_are_kept(redis_only: RedisWorld) -> None:
    instance, client = await redis_only.instance(), redis_only.server.client
    await instance.replicas.rewrite([NEW])
    await instance.replicas.append([Append(lease(USER), "e1", 0, (b"{}",), text_of="t:1", text="Hi")])
    keys = client.keys(f"*{USER}*")
    assert len(keys) == 3
    for key in keys:
        assert 0 < client.ttl(key) <= 600
        client.expire(key, 300)
    await instance.replicas.keep([USER])
    assert all(client.ttl(key) > 500 for key in keys)


async def test_a_redis_that_answers_nothing_is_unavailable_and_recovers(redis_only: RedisWorld) -> None:
    instance = await redis_only.instance()
    await instance.replicas.follow(USER)
    redis_only.server.freeze()
    try:
        async with asyncio.timeout(120):
            with pytest.raises(ReplicasUnavailableError):
                await instance.replicas.state(USER)
            await instance.listener.until(lambda listener: listener.states == ["unavailable"])
    finally:
        redis_only.server.thaw()
    await instance.listener.until(lambda listener: listener.states == ["unavailable", "recovered"])
    await instance.replicas.rewrite([NEW])


async def test_scripts_are_loaded_again_when_redis_has_forgotten_them(redis_only: RedisWorld) -> None:
    instance = await redis_only.instance()
    await instance.replicas.rewrite([NEW])
    redis_only.server.client.script_flush()
    assert await instance.replicas.append([append(0, b"{}")]) == [1]


async def test_a_replica_whose_text_was_evicted_is_absent(redis_only: RedisWorld) -> None:
    """What is appended next would be taken for all that the reply has said."""
    instance, client = await redis_only.instance(), redis_only.server.client
    await instance.replicas.rewrite([NEW])
    await instance.replicas.append([Append(lease(USER), "e1", 0, (b"1",), text_of="t:1", text="One ")])
    client.delete(f"chat:2:tests:{{{USER}}}:text")
    added = Append(lease(USER), "e1", 1, (b"2",), text_of="t:1", text="two")
    assert await instance.replicas.append([added]) == [Refusal.ABSENT]


@pytest.mark.parametrize("channel", ["control", f"{{{USER}}}"])
async def test_a_message_that_cannot_be_read_is_ignored(redis_only: RedisWorld, channel: str) -> None:
    instance, other = await redis_only.instance(), await redis_only.instance()
    await instance.replicas.follow(USER)
    redis_only.server.client.publish(f"chat:2:tests:{channel}", b'{"kind": "of a later release"}')
    await other.replicas.broadcast(ControlMessage("unowned", USER))
    await instance.listener.until(lambda listener: listener.messages)
    assert instance.listener.states == []


@pytest.mark.parametrize("key", ["state", "events", "text"])
async def test_a_key_of_another_type_is_a_replica_to_be_rewritten(redis_only: RedisWorld, key: str) -> None:
    instance, client = await redis_only.instance(), redis_only.server.client
    other = Rewrite(lease("5f0c6c1e-0000-4000-8000-000000000002"), ReplicaState(1, "f1"))
    await instance.replicas.rewrite([NEW, other])
    added = Append(lease(USER), "e1", 0, (b"1",), text_of="t:1", text="Hi")
    if key == "text":  # only one that is there is added to
        await instance.replicas.append([replace(added, events=())])
    client.delete(name := f"chat:2:tests:{{{USER}}}:{key}")
    client.sadd(name, "broken")
    theirs = Append(other.lease, "f1", 0, (b"1",))
    assert await instance.replicas.append([added, theirs]) == [Refusal.ABSENT, 1]
    assert await instance.replicas.rewrite([NEW]) == [0]
    assert await instance.replicas.append([added]) == [1]
    assert await instance.replicas.read(USER, "e1", 0, 1) == (b"1",)
