"""A new e-mail address reaches the profile with the next request, and then the billing customer."""

import asyncio

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.provisioning import Provisioner, RepairLoop
from tests.unit.provisioning.world import ANN, World, unavailable

OLD, NEW = "ann@example.com", "ann@new.example.com"


async def made(world: World) -> Provisioner:
    provisioner = world.process()
    await provisioner.ready(ANN, OLD)
    assert world.account().customer_email == OLD
    world.calls.clear()
    return provisioner


async def asked(provisioner: Provisioner, token_email: str = NEW) -> None:
    """A request of the user, with a token of that address; and the end of what it began."""
    await provisioner.ensure_account(ANN, token_email)
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_new_address_reaches_the_profile_and_the_customer(world: World) -> None:
    provisioner = await made(world)
    world.database.users[ANN] = NEW
    await asked(provisioner)
    assert (world.account().email, world.account().customer_email) == (NEW, NEW)
    assert world.billing.customers[ANN].email == NEW


async def test_an_old_token_does_not_bring_the_old_address_back(world: World) -> None:
    provisioner = await made(world)
    world.database.users[ANN] = NEW
    await asked(provisioner)
    await asked(provisioner, OLD)
    assert world.account().email == NEW
    assert world.calls.count("set_address") == 1


async def test_an_unchanged_address_causes_no_call(world: World) -> None:
    provisioner = await made(world)
    await asked(provisioner, OLD)
    assert world.calls == ["ensure"]


async def test_the_agent_is_usable_while_the_address_cannot_be_written(world: World) -> None:
    provisioner = await made(world)
    world.database.users[ANN] = NEW
    world.fail("set_address", unavailable(ErrorCode.LITELLM_UNAVAILABLE))
    await asked(provisioner)
    assert await provisioner.ready(ANN)
    assert (world.account().agent_status, world.account().status_reason) == (AgentStatus.ACTIVE, None)
    world.intercept()
    await asked(provisioner)
    assert world.billing.customers[ANN].email == NEW


async def test_the_repair_writes_the_address_of_a_user_who_does_not_come_back(world: World) -> None:
    provisioner = await made(world)
    world.database.users[ANN] = NEW
    world.fail("set_address", unavailable(ErrorCode.LITELLM_UNAVAILABLE))
    await asked(provisioner)
    world.intercept()
    loop = RepairLoop(world.process(), world.store, world.template.hash, sleep=world.sleep, clock=world.clock)
    assert await loop.round()
    assert world.billing.customers[ANN].email == NEW
    assert await world.store.outdated_customers(10) == []


async def test_a_crash_between_the_write_and_its_record_is_repeated(world: World) -> None:
    provisioner = await made(world)
    world.database.users[ANN] = NEW

    async def lost(operation: str) -> None:
        if operation == "set_address":
            raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)

    world.intercept(after=lost)
    await asked(provisioner)
    assert world.account().customer_email == OLD
    world.intercept()
    await asked(provisioner)
    assert world.account().customer_email == NEW


async def test_a_blocked_account_is_left_alone(world: World) -> None:
    provisioner = await made(world)
    world.set_account(agent_status=AgentStatus.BLOCKED)
    world.database.users[ANN] = NEW
    await asked(provisioner)
    assert "set_address" not in world.calls
    assert await world.store.outdated_customers(10) == []
