"""Who may have an account, with real services. Tokens with claims that Supabase Lite never issues are signed by the
test, with the project's own key."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import jwt
import psycopg
import pytest

from server.adapters.supabase.identity import SupabaseIdentity
from server.ports import TokenPair
from tests.conftest import NewServer
from tests.stack.chat_client import TIMEOUT
from tests.stack.own_server import ServerProcess
from tests.stack.supabase_users import PASSWORD, client_of, fresh_address


async def signed_up(env: dict[str, str], email: str | None = None) -> TokenPair:
    """A user of the project, who has no account here yet."""
    client = client_of(env)
    try:
        pair = await SupabaseIdentity(client).sign_up(email or fresh_address(), PASSWORD, None)
    finally:
        await client.aclose()
    assert pair
    return pair


def with_claims(env: dict[str, str], pair: TokenPair, **claims: Any) -> str:
    """The user's token with other claims, signed by the project's key."""
    text = pair.access_token.get_secret_value()
    key = json.loads(Path(env["SIGNING_KEY_FILE"]).read_text())
    changed = jwt.decode(text, options={"verify_signature": False}) | claims
    return jwt.encode(changed, jwt.PyJWK(key).key, "ES256", headers={"kid": key["kid"]})


async def ask(http: aiohttp.ClientSession, server: ServerProcess, token: str) -> tuple[int, str | None]:
    """The status and the error code of a request."""
    headers = {"Authorization": f"Bearer {token}"}
    async with http.get(f"{server.url}/api/v1/auth/me", headers=headers) as response:
        return response.status, (await response.json()).get("code")


async def register(http: aiohttp.ClientSession, server: ServerProcess, email: str) -> tuple[int, str | None]:
    body = {"email": email, "password": PASSWORD.get_secret_value()}
    async with http.post(f"{server.url}/api/v1/auth/register", json=body) as response:
        return response.status, (await response.json()).get("code")


async def leaves_nothing(env: dict[str, str], user_id: str) -> bool:
    """Whether there is neither an account nor a customer at LiteLLM."""
    with psycopg.connect(env["SUPABASE_DB_URL"]) as connection:
        if connection.execute("select from public.user_profiles where id = %s", [user_id]).fetchone():
            return False
    async with httpx.AsyncClient(timeout=TIMEOUT, base_url=env["LITELLM_BASE_URL"]) as litellm:
        headers = {"Authorization": f"Bearer {env['LITELLM_MASTER_KEY']}"}
        return (await litellm.get("/user/info", params={"user_id": user_id}, headers=headers)).status_code == 404


@pytest.mark.parametrize("registration", ["closed", "example.org,example.net"])
async def test_who_may_not_come_is_told_so_and_nothing_is_made(
    new_server: NewServer, server_env: dict[str, str], http: aiohttp.ClientSession, registration: str
) -> None:
    server = await new_server(REGISTRATION=registration)
    email = fresh_address()  # at example.com
    assert await register(http, server, email) == (403, "registration_closed")
    stranger = await signed_up(server_env, email)  # the refused registration has not made this user
    assert await ask(http, server, stranger.access_token.get_secret_value()) == (403, "registration_closed")
    assert await leaves_nothing(server_env, stranger.user_id)


async def test_users_of_a_listed_domain_and_those_with_an_account_may_come(
    new_server: NewServer, server_env: dict[str, str], http: aiohttp.ClientSession
) -> None:
    opened = await new_server("opened")
    known = await signed_up(server_env)
    assert (await ask(http, opened, known.access_token.get_secret_value()))[0] == 200
    listed = await new_server("listed", REGISTRATION="example.org")
    assert (await ask(http, listed, known.access_token.get_secret_value()))[0] == 200
    assert (await register(http, listed, fresh_address().replace("example.com", "example.org")))[0] == 201


async def test_anonymous_users_come_only_where_they_are_allowed(
    new_server: NewServer, server_env: dict[str, str], http: aiohttp.ClientSession
) -> None:
    pair = await signed_up(server_env)
    token = with_claims(server_env, pair, is_anonymous=True)
    usual = await new_server("usual")
    assert await ask(http, usual, token) == (403, "anonymous_not_allowed")
    assert await leaves_nothing(server_env, pair.user_id)
    allowing = await new_server("allowing", ALLOW_ANONYMOUS="true")
    assert (await ask(http, allowing, token))[0] == 200


async def test_where_a_second_factor_is_required_tokens_below_aal2_are_refused(
    new_server: NewServer, server_env: dict[str, str], http: aiohttp.ClientSession
) -> None:
    server = await new_server(REQUIRE_AAL2="true")
    pair = await signed_up(server_env)
    assert await ask(http, server, pair.access_token.get_secret_value()) == (403, "mfa_required")
    assert await ask(http, server, with_claims(server_env, pair, aal="aal1")) == (403, "mfa_required")
    assert await leaves_nothing(server_env, pair.user_id)
    assert (await ask(http, server, with_claims(server_env, pair, aal="aal2")))[0] == 200
