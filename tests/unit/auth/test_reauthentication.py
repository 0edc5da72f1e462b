"""The proof of identity before a change that a stolen token must not make."""

from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from server.auth.reauthentication import RECENT, signed_in_recently
from server.http.app_keys import REAUTHENTICATION
from server.ports import Principal, SignInMethod
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.unit.api.world import PASSWORD, World


def signed_in(world: World, *methods: tuple[str, timedelta]) -> Principal:
    """A user who signed in by these methods, so long ago."""
    token = world.token(world.database.sign_up())
    amr = tuple(SignInMethod(method, world.now() - ago) for method, ago in methods)
    return replace(world.identity.access[token], amr=amr)


@pytest.mark.parametrize("method", ["password", "otp", "oauth", "recovery", "magiclink", "totp", "sso/saml"])
def test_a_sign_in_counts_for_ten_minutes(method: str) -> None:
    world = World()
    assert signed_in_recently(signed_in(world, (method, timedelta())), world.now())
    assert not signed_in_recently(signed_in(world, (method, RECENT)), world.now() + timedelta(seconds=1))


def test_a_refresh_and_an_anonymous_sign_in_prove_nothing() -> None:
    world = World()
    old = ("password", timedelta(days=1))
    for method in ("token_refresh", "anonymous"):
        assert not signed_in_recently(signed_in(world, (method, timedelta()), old), world.now())
    assert not signed_in_recently(signed_in(world), world.now())


def test_the_latest_of_several_methods_counts() -> None:
    world = World()
    principal = signed_in(world, ("totp", timedelta(minutes=1)), ("password", timedelta(days=1)))
    assert signed_in_recently(principal, world.now())


async def test_an_api_key_or_a_ticket_proves_nothing_not_even_with_the_password() -> None:
    async with World().serving() as world:
        reauthentication = world.http.app[REAUTHENTICATION]
        principal = replace(signed_in(world, ("password", timedelta())), access_token=None, key_id="key")
        for password in (None, SecretStr(PASSWORD)):
            with pytest.raises(PlatformError) as refused:
                await reauthentication.require(principal, password)
            assert refused.value.code is ErrorCode.FORBIDDEN


async def test_another_users_password_proves_nothing() -> None:
    """Of an address that was the user's and is another one's now."""
    async with World().serving() as world:
        body = {"email": "ann@example.com", "password": PASSWORD}
        await world.visitor.post("/api/v1/auth/register", body)
        other = replace(signed_in(world), email="ann@example.com")
        with pytest.raises(PlatformError) as refused:
            await world.http.app[REAUTHENTICATION].require(other, SecretStr(PASSWORD))
        assert refused.value.code is ErrorCode.REAUTHENTICATION_REQUIRED
