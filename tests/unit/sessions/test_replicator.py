"""Copying logs to their replicas: terminal events wait for it, nothing is renumbered, what was lost is rewritten."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import orjson
import pytest

from server.ports import ControlMessage, Lease, Published, Rewrite
from server.protocol.limits import Limits
from server.sessions.events.log import EventLog
from server.sessions.events.replicator import SESSION_BYTES, SILENCE_SECONDS, Replica, Replicator
from server.sessions.events.snapshot import View
from tests.fakes.replicas import MemoryBroker, MemoryReplicas
from tests.virtual_time import now, virtual_time

USER, OWNER = "ann", "a"
LIMITS = Limits()
SETTLED_SECONDS = 1.0


@dataclass
class Instance:
    """An instance with one log that it owns, and what its backend calls it with."""

    broker: MemoryBroker = field(default_factory=MemoryBroker)
    limits: Limits = LIMITS
    leases_are_current: bool = True
    fenced: int = 0
    seen: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.backend = MemoryReplicas(self.broker)
        self.replicator = Replicator(self.backend, self.limits, lambda: self.leases_are_current)
        self.log = EventLog(self.limits, now)
        self.subscription = self.log.subscribe(None, self._read)

    def own(self, fence: int = 1, seq: int | None = None) -> Replica:
        return self.replicator.own(self.log, Lease(USER, OWNER, fence), seq, self._fence)

    def _fence(self) -> None:
        self.fenced += 1

    def _read(self) -> None:
        self.seen += [orjson.loads(frame.data) for frame in self.subscription.take()]

    def say(self, text: str) -> None:
        self.log.append("message.delta", "t", 1, text=text)

    def end(self) -> None:
        self.log.append("turn.completed", "t", 1, view=View(), turn={})

    @property
    def types(self) -> list[object]:
        return [event["type"] for event in self.seen]

    @property
    def stored(self) -> list[bytes]:
        return [data for _, data in sorted(self.broker.replicas[USER].events.items())]

    # ReplicaListener

    def published(self, user_id: str, published: Published) -> None: ...
    def missed(self) -> None:
        self.replicator.availability_changed()

    def received(self, message: ControlMessage) -> None: ...
    def unavailable(self) -> None:
        self.replicator.availability_changed()

    def recovered(self) -> None:
        self.replicator.availability_changed()


@asynccontextmanager
async def running(instance: Instance) -> AsyncIterator[Instance]:
    async with instance.backend.running(instance):
        task = asyncio.create_task(instance.replicator.run())
        try:
            yield instance
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@virtual_time
async def test_a_delta_is_delivered_before_it_is_copied_and_an_end_after_it() -> None:
    async with running(Instance()) as one:
        one.own()
        one.say("One ")
        assert one.types == ["message.delta"]
        assert USER not in one.broker.replicas
        one.end()
        one.say("next")
        assert one.types == ["message.delta"]
        await asyncio.sleep(SETTLED_SECONDS)
        assert one.types == ["message.delta", "turn.completed", "message.delta"]
        assert [event["seq"] for event in one.seen] == [1, 2, 3]
        assert [orjson.loads(data) for data in one.stored] == one.seen


@virtual_time
async def test_a_newcomer_is_not_shown_an_end_that_is_not_delivered() -> None:
    async with running(Instance()) as one:
        one.own()
        one.log.append("turn.started", "t", 1, view=View(waiting=({"id": "w"},)))
        one.end()
        assert (set(one.log.view.waiting_ids), one.log.head) == ({"w"}, 1)
        await asyncio.sleep(SETTLED_SECONDS)
        assert (bool(one.log.view), one.log.head) == (False, 2)


@virtual_time
async def test_an_end_is_delivered_without_a_replica_where_the_backend_is_unavailable() -> None:
    async with running(Instance()) as one:
        one.own()
        one.say("One ")
        await asyncio.sleep(SETTLED_SECONDS)
        one.broker.crash()
        one.end()
        one.say("next")
        await asyncio.sleep(SETTLED_SECONDS)
        assert one.types == ["message.delta", "turn.completed", "message.delta"]
        one.broker.start()
        await asyncio.sleep(10)
        assert [orjson.loads(data)["seq"] for data in one.stored] == [1, 2, 3]
        assert one.broker.replicas[USER].state.epoch == one.log.epoch


@virtual_time
async def test_an_end_that_waits_while_the_backend_fails_is_delivered_once() -> None:
    async with running(Instance()) as one:
        one.own()
        one.say("One ")
        await asyncio.sleep(SETTLED_SECONDS)
        one.broker.is_full = True
        one.end()
        await asyncio.sleep(SETTLED_SECONDS)
        one.broker.is_full = False
        await asyncio.sleep(10)
        assert one.types == ["message.delta", "turn.completed"]
        assert len(one.stored) == 2


@virtual_time
async def test_a_replica_that_lost_its_newest_events_gets_them_again_under_the_same_numbers() -> None:
    async with running(Instance()) as one:
        one.own()
        one.say("One ")
        await asyncio.sleep(SETTLED_SECONDS)
        one.broker.save()
        one.say("two ")
        await asyncio.sleep(SETTLED_SECONDS)
        one.broker.crash()
        one.broker.start()
        one.say("three")
        await asyncio.sleep(SETTLED_SECONDS)
        assert [orjson.loads(data) for data in one.stored] == one.seen
        assert one.broker.replicas[USER].state.text == "One two three"


@virtual_time
async def test_an_owner_that_has_nothing_to_say_finds_a_lost_replica_and_rewrites_it() -> None:
    async with running(Instance()) as one:
        one.own()
        one.say("One ")
        await asyncio.sleep(SETTLED_SECONDS)
        before = one.broker.replicas[USER].state
        one.broker.forget(USER)
        await asyncio.sleep(SILENCE_SECONDS + 2)
        assert one.broker.replicas[USER].state == before
        assert [orjson.loads(data) for data in one.stored] == one.seen


@virtual_time
async def test_an_owner_that_has_nothing_to_say_is_heard_though_another_never_rests() -> None:
    async with running(Instance()) as one:
        one.own()
        one.say("One ")
        talker = EventLog(LIMITS, now)
        one.replicator.own(talker, Lease("bob", OWNER, 1), None, one._fence)
        await asyncio.sleep(SETTLED_SECONDS)
        one.broker.forget(USER)
        for _ in range(1_000):
            talker.append("message.delta", "t", 1, text="word ")
            await asyncio.sleep(0.01)
        assert one.broker.replicas[USER].state.text == "One "


@virtual_time
async def test_a_replica_is_rewritten_only_under_a_lease_that_was_renewed_lately() -> None:
    async with running(Instance(leases_are_current=False)) as one:
        one.own()
        one.say("One ")
        await asyncio.sleep(10)
        assert USER not in one.broker.replicas
        one.leases_are_current = True
        await asyncio.sleep(SILENCE_SECONDS + 2)
        assert one.broker.replicas[USER].state.text == "One "


@virtual_time
async def test_events_that_were_trimmed_before_they_were_copied_cost_a_rewrite_and_no_number() -> None:
    async with running(Instance(limits=replace(LIMITS, log_events=5))) as one:
        one.own()
        for number in range(40):
            one.say(f"{number} ")
        await asyncio.sleep(SETTLED_SECONDS)
        state = one.broker.replicas[USER].state
        assert (state.head, state.text) == (40, "".join(f"{number} " for number in range(40)))
        assert [orjson.loads(data)["seq"] for data in one.stored] == [36, 37, 38, 39, 40]


@virtual_time
async def test_many_lost_replicas_are_rewritten_in_parts_and_each_is_prepared_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(Instance()) as one:
        users = [f"user-{number}" for number in range(100)]
        for user in users:
            log = EventLog(LIMITS, now)
            one.replicator.own(log, Lease(user, OWNER, 1), 0, one._fence)
            for _ in range(50):
                log.append("message.delta", "t", 1, text="x" * 1_000)
        prepared: list[str] = []
        rewrite_of = Replicator._rewrite_of

        def count(replicator: Replicator, replica: Replica) -> Rewrite:
            prepared.append(replica.lease.user_id)
            return rewrite_of(replicator, replica)

        monkeypatch.setattr(Replicator, "_rewrite_of", count)
        await asyncio.sleep(10)
        assert set(one.broker.replicas) == set(users)
        assert sorted(prepared) == sorted(users)


@virtual_time
async def test_an_owner_that_was_replaced_appends_nothing_and_is_fenced_once() -> None:
    async with running(Instance()) as one:
        one.own()
        one.say("One ")
        await asyncio.sleep(SETTLED_SECONDS)
        other = MemoryReplicas(one.broker)
        assert await other.take_over(Lease(USER, "b", 2)) is not None
        one.say("two ")
        one.end()
        await asyncio.sleep(10)
        assert (one.fenced, len(one.stored)) == (1, 1)
        assert "turn.completed" not in one.types


@virtual_time
async def test_a_large_event_is_sent_alone_and_a_long_backlog_in_parts() -> None:
    async with running(Instance()) as one:
        one.own()
        await asyncio.sleep(SETTLED_SECONDS)
        one.say("x" * (SESSION_BYTES + 1))
        for _ in range(3):
            one.say("y" * (SESSION_BYTES // 2))
        replica = one.log.replica
        assert isinstance(replica, Replica)
        assert len(one.replicator._append_of(replica).events) == 1
        await replica.level()
        assert len(one.stored) == 4


@virtual_time
async def test_a_wait_for_a_level_replica_ends_when_the_backend_is_unavailable() -> None:
    async with running(Instance()) as one:
        replica = one.own()
        one.say("One ")
        await replica.level()
        assert one.broker.replicas[USER].state.head == 1
        one.broker.crash()
        one.say("two ")
        async with asyncio.timeout(5):
            await replica.level()
        assert not one.backend.is_available
