"""The user's name is written to the agent when the agent is created, and after each change of the profile."""

from server.ports import Account
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.provisioning import Provisioner
from server.provisioning.provisioner import CACHED_SECONDS
from tests.unit.provisioning.world import ANN, World


async def made(world: World, name: str | None = "Ann") -> Provisioner:
    provisioner = world.process()
    await provisioner.ready(ANN, "ann@example.com", name)
    world.calls.clear()
    return provisioner


def human(world: World) -> str:
    handle = world.account().handle
    assert handle is not None
    return world.directory.agent(handle).human


async def rename(world: World, name: str) -> Account:
    return await world.store.rename(ANN, name)


async def test_a_name_that_the_agent_has_is_not_written_again(world: World) -> None:
    provisioner = await made(world)
    await provisioner.sync_name(ANN)
    assert human(world) == "User's name: Ann"
    assert world.account().told_name == "Ann"
    assert world.calls == []


async def test_a_user_without_a_name_causes_no_call(world: World) -> None:
    provisioner = await made(world, name=None)
    await provisioner.sync_name(ANN)
    assert human(world) == "User's name: Friend"
    assert world.calls == []


async def test_a_new_name_is_written_once(world: World) -> None:
    provisioner = await made(world)
    await rename(world, "Anna")
    provisioner.evict(ANN)

    for _ in range(3):
        await provisioner.ready(ANN)
        await provisioner.sync_name(ANN)

    assert human(world) == "User's name: Anna"
    assert world.account().told_name == "Anna"
    assert world.calls.count("write_name") == 1


async def test_another_instance_writes_the_name_when_its_cached_agent_expires(world: World) -> None:
    other = await made(world)
    await rename(world, "Anna")
    await other.sync_name(ANN)
    assert human(world) == "User's name: Ann"

    await world.sleep(CACHED_SECONDS)
    await other.ready(ANN)
    await other.sync_name(ANN)

    assert human(world) == "User's name: Anna"


async def test_writing_the_name_does_not_extend_the_ttl_of_the_cached_agent(world: World) -> None:
    provisioner = await made(world)
    await rename(world, "Anna")
    provisioner.evict(ANN)
    await provisioner.ready(ANN)
    await world.sleep(CACHED_SECONDS - 1)
    await provisioner.sync_name(ANN)
    await world.sleep(1)
    world.calls.clear()
    await provisioner.ready(ANN)
    assert world.calls == ["get"]


async def test_a_name_that_could_not_be_written_is_written_later(world: World) -> None:
    provisioner = await made(world)
    await rename(world, "Anna")
    provisioner.evict(ANN)
    world.fail("write_name", lambda: PlatformError(ErrorCode.LETTA_UNAVAILABLE))
    await provisioner.sync_name(ANN)
    assert world.account().told_name == "Ann"
    assert world.account().agent_status is AgentStatus.ACTIVE

    world.intercept()
    await provisioner.ready(ANN)
    await provisioner.sync_name(ANN)

    assert (human(world), world.account().told_name) == ("User's name: Anna", "Anna")


async def test_a_name_that_does_not_fit_is_not_retried_before_each_turn(world: World) -> None:
    provisioner = await made(world)
    handle = world.account().handle
    assert handle is not None
    world.directory.agent(handle).human = full = "x" * 1_000
    await rename(world, "Anna")
    provisioner.evict(ANN)

    for _ in range(3):
        await provisioner.ready(ANN)
        await provisioner.sync_name(ANN)

    assert world.calls.count("write_name") == 1
    assert human(world) == full


async def test_a_failure_between_writing_and_recording_repeats_the_same_write(world: World) -> None:
    provisioner = await made(world)
    await rename(world, "Anna")
    provisioner.evict(ANN)
    world.fail("record", lambda: PlatformError(ErrorCode.SUPABASE_UNAVAILABLE))
    await provisioner.sync_name(ANN)
    assert (human(world), world.account().told_name) == ("User's name: Anna", "Ann")

    world.intercept()
    await world.process().sync_name(ANN)

    assert (human(world), world.account().told_name) == ("User's name: Anna", "Anna")


async def test_no_name_is_written_while_another_instance_provisions_the_account(world: World) -> None:
    provisioner = await made(world)
    await rename(world, "Anna")
    provisioner.evict(ANN)
    claim = await world.store.claim(ANN, "somebody else", 30)
    assert claim is not None
    await provisioner.sync_name(ANN)
    assert human(world) == "User's name: Ann"

    await world.store.release(claim)
    await provisioner.sync_name(ANN)
    assert human(world) == "User's name: Anna"


async def test_a_found_agent_may_have_another_name(world: World) -> None:
    """The agent was created by a run that was killed before it recorded the agent, and the user was renamed since."""
    world.fail("ensure_conversation", lambda: PlatformError(ErrorCode.LETTA_UNAVAILABLE))
    await made_until_the_agent(world)
    await rename(world, "Anna")
    world.set_account(agent_id=None, told_name=None, intent="agent")
    world.intercept()

    provisioner = world.process()
    await provisioner.ready(ANN)
    await provisioner.sync_name(ANN)

    assert human(world).splitlines()[0] == "User's name: Anna"


async def made_until_the_agent(world: World) -> None:
    provisioner = world.process()
    await provisioner.ensure_account(ANN, "ann@example.com", "Ann")
    try:
        await provisioner.attempt(ANN)
    except PlatformError:
        await provisioner.aclose()
