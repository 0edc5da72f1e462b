"""What happens while a session waits for the database or the replicas: losses, outages, other owners' events."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest

from server.ports import Append, Refusal, ReplicasUnavailableError
from server.protocol.codes import TRY_AGAIN_LATER, ErrorCode
from server.protocol.errors import PlatformError
from server.sessions.events.logs import ReplicatedLogs
from server.sessions.hub import RefusedConnectionError
from tests.fakes.agent import Reply
from tests.unit.sessions.device import Device
from tests.unit.sessions.world import SHARED, World
from tests.virtual_time import virtual_time

LONG = Reply(words=("word ",) * 50, per_word=0.1)


@pytest.fixture(autouse=True)
def placement() -> Iterator[None]:
    token = SHARED.set(True)
    yield
    SHARED.reset(token)


@virtual_time
async def test_a_claim_whose_open_turns_cannot_be_read_is_retried_with_pauses() -> None:
    async with World(reply=LONG) as world:
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        laptop = await second.device(user)
        turn = (await first.send(user, "talk")).turn
        waiting = (await first.send(user, "wait")).turn
        await laptop.until_text(turn.id, "word ")
        first.kill()
        claims = 0

        async def fail(operation: str) -> None:
            nonlocal claims
            claims += operation == "claim"
            if operation == "turn" and claims < 100:
                raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

        world.database.before = fail
        await second.cancel(user, waiting.id)
        await asyncio.sleep(40)
        assert 1 < claims < 20
        world.database.before = None
        await laptop.until_end(waiting.id)
        await laptop.until_end(turn.id)


@virtual_time
async def test_what_an_owner_publishes_while_a_session_is_opened_elsewhere_is_newer_than_the_rows_it_read() -> None:
    async with World(reply=LONG) as world:
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        await first.device(user)
        reading, proceed = asyncio.Event(), asyncio.Event()

        async def hold(operation: str) -> None:
            if operation == "open_turns" and not reading.is_set():
                reading.set()
                await proceed.wait()

        world.database.after = hold
        joining = asyncio.create_task(second.device(user))
        await reading.wait()
        turn = (await first.send(user, "talk")).turn
        await asyncio.sleep(1)
        proceed.set()
        laptop = await joining
        assert laptop.attachment is not None
        running = laptop.attachment.snapshot.running
        assert (running and running.turn_id, laptop.streamed(turn.id)[:5]) == (turn.id, "word ")


@pytest.mark.parametrize("operation", ["release", "open_turns"])
@virtual_time
async def test_an_outage_of_the_replicas_leaves_no_connection_without_events(operation: str) -> None:
    """It begins while the session gives its lease back, or is opened: then it is claimed, or left."""
    async with World() as world:
        assert world.broker is not None
        broker = world.broker
        process, user = await world.process("a"), world.user()

        async def crash(what: str) -> None:
            if what == operation and broker.is_up:
                broker.crash()
                await asyncio.sleep(5)

        world.database.before = crash
        phone = await process.device(user)
        if operation == "release":
            await process.send(user, "hello")
        await asyncio.sleep(20)
        assert world.owner(user) == "a" or phone.closed is TRY_AGAIN_LATER


@virtual_time
async def test_who_comes_back_during_an_outage_of_the_replicas_has_the_session_claimed_again() -> None:
    async with World() as world:
        assert world.broker is not None
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        world.broker.crash()
        await asyncio.sleep(5)
        (await first.device(user)).leave()
        await asyncio.sleep(15)
        assert world.owner(user) is None
        phone, laptop = await first.device(user), Device()
        with suppress(RefusedConnectionError, PlatformError):
            await laptop.join(second.hub, user)
            turn = (await second.send(user, "hello")).turn
            await laptop.until_end(turn.id)
        assert world.owner(user) == "a"
        assert phone.closed is None


@virtual_time
async def test_all_ends_that_wait_for_the_replica_are_delivered_before_the_lease_is_released() -> None:
    async with World(reply=LONG) as world:
        assert world.broker is not None
        process, user = await world.process("a"), world.user()
        phone = await process.device(user)
        turn = (await process.send(user, "talk")).turn
        waiting = [(await process.send(user, said)).turn.id for said in ("one", "two", "three")]
        await phone.until_text(turn.id, "word ")

        async def hang(_appends: Sequence[Append]) -> list[int | Refusal]:
            await asyncio.sleep(60)
            raise ReplicasUnavailableError

        setattr(world.broker.backends[0], "append", hang)  # noqa: B010
        await asyncio.sleep(0.5)
        for turn_id in waiting:
            await process.cancel(user, turn_id)
        await process.hub.drain(1.0)
        assert [turn_id for turn_id, _ in phone.ends] == waiting


@virtual_time
async def test_a_session_whose_user_was_deleted_elsewhere_is_given_up() -> None:
    async with World(reply=LONG) as world:
        first, second, user = await world.process("a"), await world.process("b"), world.user()
        laptop = await second.device(user)
        turn = (await first.send(user, "talk")).turn
        await laptop.until_text(turn.id, "word ")
        first.kill()
        world.database.delete_user(user)
        await asyncio.sleep(60)
        assert (laptop.closed is not None, user in second.hub.sessions) == (True, False)


@pytest.mark.parametrize("shared", [True, False])
@virtual_time
async def test_a_session_that_is_lost_at_any_step_leaves_nothing_behind(shared: bool) -> None:
    """No slot, no log that is written, no turn that nobody runs."""
    for step in range(1, 40):
        async with World(shared=shared) as world:
            process, user = await world.process("a"), world.user()
            await process.device(user)
            boundary, begun = process.boundary, process.boundary.crossings
            cross = boundary.cross

            async def lose(step: int = step) -> None:
                await cross()  # noqa: B023
                session = process.hub.sessions.get(user)  # noqa: B023
                if boundary.crossings - begun == step and session is not None:  # noqa: B023
                    session.lost()

            boundary.cross = lose  # type: ignore[method-assign]
            for said in ("one", "two"):
                with suppress(PlatformError):
                    await process.send(user, said)
            await asyncio.sleep(60)
            admission = process.hub.admission
            assert (admission.running, admission.waiting) == (0, 0), step
            assert all(turn.status.ended for turn in world.turns(user)), step
            logs = process.hub._logs
            assert not isinstance(logs, ReplicatedLogs) or not logs._replicator._owned, step
