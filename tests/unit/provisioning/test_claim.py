"""The claim on a user during a long step: renewed, and if that fails the step is stopped before the claim expires."""

import asyncio

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.provisioning.claims import CLAIM_SECONDS, UNRENEWED_SECONDS
from server.provisioning.saga import ProvisioningError
from tests.unit.provisioning.world import ANN, World
from tests.virtual_time import now, virtual_time

EMAIL = "ann@example.com"


def world_in_loop_time() -> World:
    """A world whose database uses the loop's clock."""
    world = World()
    world.database.clock = now
    return world


@virtual_time
async def test_a_step_longer_than_the_claim_renews_it() -> None:
    world = world_in_loop_time()

    async def slow(operation: str) -> None:
        if operation == "ensure_agent":
            await asyncio.sleep(2 * CLAIM_SECONDS)

    world.intercept(slow)
    working = asyncio.create_task(world.process().attempt(ANN, thorough=False))
    await world.store.ensure(ANN, EMAIL, None)
    await asyncio.sleep(1.5 * CLAIM_SECONDS)
    assert await world.store.claim(ANN, "another instance", CLAIM_SECONDS) is None
    await working
    world.assert_exactly_one_of_each()


@virtual_time
async def test_a_step_is_stopped_before_a_claim_that_cannot_be_renewed_expires() -> None:
    world = world_in_loop_time()
    began: list[float] = []

    async def cut_off(operation: str) -> None:
        if operation == "ensure_agent":
            began.append(asyncio.get_running_loop().time())
            await asyncio.Event().wait()
        elif operation == "record" and began:
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    world.intercept(cut_off)
    await world.store.ensure(ANN, EMAIL, None)
    with pytest.raises(ProvisioningError):
        await world.process().attempt(ANN)
    assert asyncio.get_running_loop().time() - began[0] == pytest.approx(UNRENEWED_SECONDS)
    assert UNRENEWED_SECONDS < CLAIM_SECONDS


@virtual_time
async def test_a_step_is_stopped_at_once_when_another_instance_takes_over_the_claim() -> None:
    world = world_in_loop_time()

    async def stuck(operation: str) -> None:
        if operation == "ensure_agent":
            await asyncio.Event().wait()

    world.intercept(stuck)
    await world.store.ensure(ANN, EMAIL, None)
    working = asyncio.create_task(world.process().attempt(ANN))
    await asyncio.sleep(1.0)
    world.database.profiles[ANN].fence += 1
    with pytest.raises(PlatformError) as failure:
        await working
    assert failure.value.code is ErrorCode.AGENT_UNAVAILABLE
    assert asyncio.get_running_loop().time() < 1_000.0 + UNRENEWED_SECONDS
