"""Who may have an account, and who may use it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from server.auth.gate import AccountGate
from server.ports import Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.unit.api.world import PASSWORD, Client, World

REGISTER = {"email": "ann@example.com", "password": PASSWORD}
LISTED = AccountGate(("example.com", "example.org"))


@pytest.mark.parametrize("email", ["ann@example.com", "ann@EXAMPLE.ORG", '"a@b"@example.com'])
def test_addresses_of_listed_domains_may_register(email: str) -> None:
    LISTED.admit(email)


@pytest.mark.parametrize(
    "email",
    ["", "ann", "ann@sub.example.com", "ann@example.com.evil.com", "example.com@evil.com", "ann@notexample.com"],
)
def test_other_addresses_may_not(email: str) -> None:
    with pytest.raises(PlatformError) as refused:
        LISTED.admit(email)
    assert refused.value.code is ErrorCode.REGISTRATION_CLOSED


def test_anonymous_users_need_a_setting_of_their_own_and_an_open_registration() -> None:
    AccountGate(anonymous_allowed=True).admit("", is_anonymous=True)
    AccountGate(("example.com",), anonymous_allowed=True).admit("", is_anonymous=True)
    for gate, code in (
        (AccountGate(), ErrorCode.ANONYMOUS_NOT_ALLOWED),
        (AccountGate("closed", anonymous_allowed=True), ErrorCode.REGISTRATION_CLOSED),
    ):
        with pytest.raises(PlatformError) as refused:
            gate.admit("", is_anonymous=True)
        assert refused.value.code is code


@pytest.mark.parametrize("gate", [AccountGate("closed"), AccountGate(("example.org",))])
async def test_who_may_not_register_is_told_so_and_nothing_is_made(gate: AccountGate) -> None:
    async with World(gate=gate).serving() as world:
        registered = await world.visitor.post("/api/v1/auth/register", REGISTER)
        user = await world.user(ready=False)  # of Supabase, with an address at example.com
        asked = await user.get("/api/v1/auth/me")
        said = await user.say("hello")
        assert [(a.status, a.code) for a in (registered, asked, said)] == [(403, "registration_closed")] * 3
        assert world.database.users.keys() == {user.user_id}
        assert not world.database.profiles
        assert not world.billing.customers
        assert not world.directory.organizations


async def test_signing_in_at_supabase_elsewhere_opens_no_account_either() -> None:
    async with World(gate=AccountGate("closed")).serving() as world:
        tokens = world.identity.issue(world.database.sign_up())
        body = {"refresh_token": tokens.refresh_token.get_secret_value()}
        refreshed = await world.visitor.post("/api/v1/auth/refresh", body)
        assert (refreshed.status, refreshed.code) == (403, "registration_closed")
        assert not world.database.profiles


async def test_existing_accounts_and_those_that_an_operator_opens_pass_a_closed_registration() -> None:
    async with World(gate=AccountGate("closed")).serving() as world:
        user = await world.user()  # opened by the provisioner, as an operator does
        assert (await user.get("/api/v1/auth/me")).status == 200


def with_claims(world: World, user_id: str, **claims: Any) -> Client:
    token = world.token(user_id)
    world.identity.access[token] = Principal(user_id, "", SecretStr(token), datetime(2100, 1, 1, tzinfo=UTC), **claims)
    return Client(world.http, token, user_id)


async def key_of(user: Client) -> str:
    """An API key that reads for the user."""
    made = await user.post("/api/v1/user/api-keys", {"name": "script", "scopes": ["read"]})
    assert made.status == 201
    return str(made.json["key"])


async def test_a_token_of_an_anonymous_user_is_refused_also_for_an_existing_account(world: World) -> None:
    user = await world.user()
    refused = await with_claims(world, user.user_id, is_anonymous=True).get("/api/v1/auth/me")
    assert (refused.status, refused.code) == (403, "anonymous_not_allowed")


@pytest.mark.parametrize(("is_allowed", "status"), [(True, 200), (False, 403)])
async def test_a_key_of_an_anonymous_user_is_accepted_where_such_users_are(is_allowed: bool, status: int) -> None:
    async with World(gate=AccountGate(anonymous_allowed=is_allowed)).serving() as world:
        user = await world.user()
        key = Client(world.http, await key_of(user), user.user_id)
        world.database.anonymous.add(user.user_id)
        answer = await key.get("/api/v1/auth/me")
        assert (answer.status, answer.json.get("code")) == (status, None if is_allowed else "anonymous_not_allowed")


async def test_an_allowed_anonymous_user_gets_an_account() -> None:
    async with World(gate=AccountGate(anonymous_allowed=True)).serving() as world:
        user = with_claims(world, world.database.sign_up(), is_anonymous=True)
        assert (await user.get("/api/v1/auth/me")).status == 200


async def test_where_a_second_factor_is_required_a_token_without_one_is_refused_everywhere() -> None:
    async with World(requires_aal2=True).serving() as world:
        user_id = world.database.sign_up()
        weak, strong = with_claims(world, user_id), with_claims(world, user_id, aal="aal2")
        for path in ("/api/v1/auth/me", "/api/v1/chat/history", "/api/v1/user/usage"):
            refused = await weak.get(path)
            assert (refused.status, refused.code) == (403, "mfa_required")
        assert user_id not in world.database.profiles
        assert (await strong.get("/api/v1/auth/me")).status == 200


async def test_where_a_second_factor_is_required_it_is_needed_to_make_a_key_and_not_to_use_it() -> None:
    """A key is a credential of its own, as elsewhere: scripts have no second factor."""
    async with World(requires_aal2=True).serving() as world:
        user = await world.user()
        weak, strong = with_claims(world, user.user_id), with_claims(world, user.user_id, aal="aal2")
        refused = await weak.post("/api/v1/user/api-keys", {"name": "script", "scopes": ["read"]})
        assert (refused.status, refused.code) == (403, "mfa_required")
        assert not world.database.api_keys
        key = Client(world.http, await key_of(strong), user.user_id)
        assert (await key.get("/api/v1/auth/me")).status == 200


async def test_signing_in_gives_a_token_to_which_supabase_js_adds_the_second_factor() -> None:
    async with World(requires_aal2=True).serving() as world:
        await world.visitor.post("/api/v1/auth/register", REGISTER)
        answer = await world.visitor.post("/api/v1/auth/login", REGISTER)
        assert answer.status == 200
        refused = await Client(world.http, answer.json["access_token"]).get("/api/v1/auth/me")
        assert (refused.status, refused.code) == (403, "mfa_required")
