"""After a change of SECRET_KEY, stored keys are encrypted with the new one; the keys and agents do not change."""

from pydantic import SecretStr

from server.keyring import KeyRing
from server.provisioning.reencryption import reencrypt
from tests.unit.provisioning.world import ANN, KEYS, World

OLD = SecretStr("a secret key that is long enough for this")
NEW = SecretStr("another secret key that is long enough too")
OWNER = "operator"


BOTH, ONLY_NEW = KeyRing(NEW, OLD), KeyRing(NEW)


async def test_the_same_key_is_encrypted_with_the_new_secret_key(world: World) -> None:
    await world.process().ready(ANN, "ann@example.com")
    assert await reencrypt(world.store, BOTH, ANN, OWNER) == "done"
    text = world.account().encrypted_key
    assert text is not None
    assert ONLY_NEW.open(ANN, text).get_secret_value() == world.billing.key_of(ANN)
    assert await reencrypt(world.store, ONLY_NEW, ANN, OWNER) == "current"


async def test_a_reencrypted_key_is_stored_with_its_hash(world: World) -> None:
    """Accounts of earlier versions may lack it."""
    await world.process().ready(ANN, "ann@example.com")
    name, world.database.profiles[ANN].key_hash = world.key_hash(), None
    await reencrypt(world.store, BOTH, ANN, OWNER)
    assert world.key_hash() == name


async def test_the_agent_does_not_change(world: World) -> None:
    handle = await world.process().ready(ANN, "ann@example.com")
    await reencrypt(world.store, BOTH, ANN, OWNER)
    world.calls.clear()
    world.keys = ONLY_NEW
    assert await world.process().ready(ANN) == handle
    assert world.calls == ["get"]
    world.assert_exactly_one_of_each()


async def test_a_user_without_a_key_has_nothing_to_reencrypt(world: World) -> None:
    await world.store.ensure(ANN, "ann@example.com", None)
    assert await reencrypt(world.store, BOTH, ANN, OWNER) == "current"


async def test_a_user_who_is_being_provisioned_is_reported_as_busy(world: World) -> None:
    await world.store.ensure(ANN, "ann@example.com", None)
    await world.store.claim(ANN, "a server", 60)
    assert await reencrypt(world.store, BOTH, ANN, OWNER) == "busy"


async def test_an_unreadable_key_is_reported_and_does_not_change(world: World) -> None:
    await world.process().ready(ANN, "ann@example.com")
    before = world.account().encrypted_key
    assert await reencrypt(world.store, ONLY_NEW, ANN, OWNER) == "unreadable"
    assert world.account().encrypted_key == before


async def test_the_claim_is_released(world: World) -> None:
    await world.process().ready(ANN, "ann@example.com")
    for keys in (BOTH, ONLY_NEW, KEYS):
        await reencrypt(world.store, keys, ANN, OWNER)
        assert world.database.profiles[ANN].claimed_until is None
