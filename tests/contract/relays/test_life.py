"""How every relay goes away, forgets and comes back, and what each instance is told of it."""

import asyncio

import pytest

from server.ports import Batch, News, Notice, Outcome, RelayAwayError, SharedState
from tests.contract.relays.worlds import RedisWorld, RelayWorld, lease

USER = "5f0c6c1e-0000-4000-8000-000000000001"


def batch(head: int, *events: bytes) -> Batch:
    return Batch(lease(USER), "e1", head, 0, events)


async def test_a_notice_reaches_every_instance_but_its_sender(world: RelayWorld) -> None:
    sender, other = await world.instance(), await world.instance()
    notices = [
        Notice("look", USER),
        Notice("free", USER),
        Notice("tell", USER, event=News("usage.settled", {"cost": "0.1", "usage": None}, "a turn", 2)),
    ]
    notices.append(Notice("look", USER, ended="a turn"))
    for notice in notices:
        await sender.relay.notify(notice)
    await other.reader.until(lambda reader: len(reader.notices) == 4)
    assert (other.reader.notices, sender.reader.notices) == (notices, [])


async def test_a_short_absence_is_told_as_something_missed(world: RelayWorld) -> None:
    instance = await world.instance()
    await instance.relay.follow(USER)
    await world.save()
    await world.crash()
    await world.start()
    await instance.reader.until(lambda reader: reader.states)
    assert instance.reader.states in (["missed"], ["away", "back"])
    other = await world.instance()
    await other.relay.take(lease(USER), "e1")
    await other.relay.append([batch(0, b"{}")])
    await instance.reader.until(lambda reader: reader.news)


async def test_a_long_absence_is_told_and_so_is_the_return(world: RelayWorld) -> None:
    instance = await world.instance()
    await world.crash()
    with pytest.raises(RelayAwayError):
        await instance.relay.look(USER, "e1")
    await instance.reader.until(lambda reader: reader.states == ["away"])
    assert instance.relay.is_away
    await world.start()
    await instance.reader.until(lambda reader: reader.states == ["away", "back"])
    assert not instance.relay.is_away
    assert (await instance.relay.look(USER, "e1")).fresh


async def test_an_instance_starts_without_it_and_hears_when_it_comes(world: RelayWorld) -> None:
    await world.crash()
    instance = await world.instance()
    assert instance.relay.is_away
    await world.start()
    await instance.reader.until(lambda reader: reader.states[-1:] == ["back"])
    await instance.relay.follow(USER)


async def test_whoever_finds_it_away_may_say_so_at_once(world: RelayWorld) -> None:
    instance = await world.instance()
    instance.relay.report_away()
    assert instance.reader.states == ["away"]
    instance.relay.report_away()
    await instance.reader.until(lambda reader: reader.states == ["away", "back"])


async def test_a_log_that_may_have_lost_its_newest_events_is_not_intact(world: RelayWorld) -> None:
    owner = await world.instance()
    await owner.relay.take(lease(USER), "e1")
    await owner.relay.append([batch(0, b"1", b"2")])
    await world.save()
    await owner.relay.append([batch(2, b"3")])
    await world.crash()
    await world.start()
    await owner.reader.until(lambda reader: reader.states)
    assert await owner.relay.append([batch(3, b"4")]) == [Outcome.LOST]
    heir = await world.instance()
    found = await heir.relay.take(lease(USER, 2), "x")
    assert (found.intact, found.state.head) == (False, 2)
    await heir.relay.begin(lease(USER, 2), SharedState("e2"))
    assert (await heir.relay.take(lease(USER, 3), "x")).intact


async def test_a_full_relay_is_away_until_there_is_room(world: RelayWorld) -> None:
    owner = await world.instance()
    await owner.relay.take(lease(USER), "e1")
    await world.fill()
    with pytest.raises(RelayAwayError):
        await owner.relay.append([batch(0, b"1")])
    owner.relay.report_away()
    await world.make_room()
    await owner.reader.until(lambda reader: reader.states == ["away", "back"])
    assert await owner.relay.append([batch(0, b"1")]) == [Outcome.APPENDED]


async def test_a_crowd_that_comes_at_once_is_no_outage(world: RelayWorld) -> None:
    instance = await world.instance()
    users = [f"5f0c6c1e-0000-4000-8000-{number:012d}" for number in range(500)]
    await asyncio.gather(*(instance.relay.follow(user) for user in users))
    found = await asyncio.gather(*(instance.relay.look(user, "e1") for user in users))
    assert all(one.fresh for one in found)
    assert instance.reader.states == []


async def test_deployments_that_share_a_redis_do_not_hear_each_other(redis_only: RedisWorld) -> None:
    staging, production = await redis_only.instance("staging"), await redis_only.instance("production")
    await staging.relay.take(lease(USER), "e1")
    await staging.relay.append([batch(0, b"{}")])
    await staging.relay.notify(Notice("look", USER))
    assert (await production.relay.look(USER, "p1")).state == SharedState("p1")
    neighbour = await redis_only.instance("production")
    await neighbour.relay.notify(Notice("free", USER))
    await production.reader.until(lambda reader: reader.notices)
    assert production.reader.notices == [Notice("free", USER)]


async def test_logs_expire_unless_they_are_kept(redis_only: RedisWorld) -> None:
    instance, client = await redis_only.instance(), redis_only.server.client
    await instance.relay.take(lease(USER), "e1")
    await instance.relay.append([Batch(lease(USER), "e1", 0, 0, (b"{}",), text_of="t:1", text="Hi")])
    keys = client.keys(f"*{USER}*")
    assert len(keys) == 3
    for key in keys:
        assert 0 < client.ttl(key) <= 600
        client.expire(key, 5)
    await instance.relay.keep([USER])
    assert all(client.ttl(key) > 500 for key in keys)


async def test_a_redis_that_answers_nothing_is_away_and_comes_back(redis_only: RedisWorld) -> None:
    instance = await redis_only.instance()
    await instance.relay.follow(USER)
    redis_only.server.freeze()
    try:
        async with asyncio.timeout(30):
            with pytest.raises(RelayAwayError):
                await instance.relay.look(USER, "e1")
            await instance.reader.until(lambda reader: reader.states == ["away"])
    finally:
        redis_only.server.thaw()
    await instance.reader.until(lambda reader: reader.states == ["away", "back"])
    await instance.relay.take(lease(USER), "e1")


async def test_scripts_are_loaded_again_when_redis_has_forgotten_them(redis_only: RedisWorld) -> None:
    instance = await redis_only.instance()
    await instance.relay.take(lease(USER), "e1")
    redis_only.server.client.script_flush()
    assert await instance.relay.append([batch(0, b"{}")]) == [Outcome.APPENDED]
