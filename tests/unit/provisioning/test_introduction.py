"""An agent is told its user's name: when it is made, and whenever the profile has another one."""

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


async def test_an_agent_that_knows_the_name_is_not_told_again(world: World) -> None:
    provisioner = await made(world)
    await provisioner.introduce(ANN)
    assert human(world) == "User's name: Ann"
    assert world.account().told_name == "Ann"
    assert world.calls == []


async def test_a_user_without_a_name_costs_no_question(world: World) -> None:
    provisioner = await made(world, name=None)
    await provisioner.introduce(ANN)
    assert human(world) == "User's name: Friend"
    assert world.calls == []


async def test_a_new_name_is_told_once(world: World) -> None:
    provisioner = await made(world)
    await rename(world, "Anna")
    provisioner.forget(ANN)

    for _ in range(3):
        await provisioner.ready(ANN)
        await provisioner.introduce(ANN)

    assert human(world) == "User's name: Anna"
    assert world.account().told_name == "Anna"
    assert world.calls.count("tell_name") == 1


async def test_another_instance_tells_the_name_when_it_looks_at_the_account_again(world: World) -> None:
    other = await made(world)
    await rename(world, "Anna")
    await other.introduce(ANN)
    assert human(world) == "User's name: Ann"

    await world.sleep(CACHED_SECONDS)
    await other.ready(ANN)
    await other.introduce(ANN)

    assert human(world) == "User's name: Anna"


async def test_an_introduction_does_not_prolong_how_long_an_agent_is_taken_for_granted(world: World) -> None:
    provisioner = await made(world)
    await rename(world, "Anna")
    provisioner.forget(ANN)
    await provisioner.ready(ANN)
    await world.sleep(CACHED_SECONDS - 1)
    await provisioner.introduce(ANN)
    await world.sleep(1)
    world.calls.clear()
    await provisioner.ready(ANN)
    assert world.calls == ["get"]


async def test_what_cannot_be_told_now_is_told_later_and_disturbs_nobody(world: World) -> None:
    provisioner = await made(world)
    await rename(world, "Anna")
    provisioner.forget(ANN)
    world.fail("tell_name", lambda: PlatformError(ErrorCode.LETTA_UNAVAILABLE))
    await provisioner.introduce(ANN)
    assert world.account().told_name == "Ann"
    assert world.account().agent_status is AgentStatus.ACTIVE

    world.intercept()
    await provisioner.ready(ANN)
    await provisioner.introduce(ANN)

    assert (human(world), world.account().told_name) == ("User's name: Anna", "Anna")


async def test_a_name_without_room_is_not_asked_about_before_each_turn(world: World) -> None:
    provisioner = await made(world)
    handle = world.account().handle
    assert handle is not None
    world.directory.agent(handle).human = full = "x" * 1_000
    await rename(world, "Anna")
    provisioner.forget(ANN)

    for _ in range(3):
        await provisioner.ready(ANN)
        await provisioner.introduce(ANN)

    assert world.calls.count("tell_name") == 1
    assert human(world) == full


async def test_a_crash_between_telling_and_recording_tells_again_with_the_same_words(world: World) -> None:
    provisioner = await made(world)
    await rename(world, "Anna")
    provisioner.forget(ANN)
    world.fail("record", lambda: PlatformError(ErrorCode.SUPABASE_UNAVAILABLE))
    await provisioner.introduce(ANN)
    assert (human(world), world.account().told_name) == ("User's name: Anna", "Ann")

    world.intercept()
    await world.process().introduce(ANN)

    assert (human(world), world.account().told_name) == ("User's name: Anna", "Anna")


async def test_nothing_is_told_while_the_account_is_being_provisioned_elsewhere(world: World) -> None:
    provisioner = await made(world)
    await rename(world, "Anna")
    provisioner.forget(ANN)
    claim = await world.store.claim(ANN, "somebody else", 30)
    assert claim is not None
    await provisioner.introduce(ANN)
    assert human(world) == "User's name: Ann"

    await world.store.release(claim)
    await provisioner.introduce(ANN)
    assert human(world) == "User's name: Anna"


async def test_a_found_agent_may_know_another_name(world: World) -> None:
    """The agent was made by an attempt that died before it could record it, and the user was renamed meanwhile."""
    world.fail("ensure_conversation", lambda: PlatformError(ErrorCode.LETTA_UNAVAILABLE))
    await made_until_the_agent(world)
    await rename(world, "Anna")
    world.set_account(agent_id=None, told_name=None, intent="agent")
    world.intercept()

    provisioner = world.process()
    await provisioner.ready(ANN)
    await provisioner.introduce(ANN)

    assert human(world).splitlines()[0] == "User's name: Anna"


async def made_until_the_agent(world: World) -> None:
    provisioner = world.process()
    await provisioner.ensure_account(ANN, "ann@example.com", "Ann")
    try:
        await provisioner.attempt(ANN)
    except PlatformError:
        await provisioner.aclose()
