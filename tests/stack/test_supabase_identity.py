"""Sign-up, sign-in, sign-out and the verification of their tokens, at a real Supabase Auth."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing

import httpx
import jwt
import pytest
from pydantic import SecretStr

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.identity import SupabaseIdentity
from server.adapters.supabase.inspection import SupabaseInspection
from server.adapters.supabase.issuers import own_issuer
from server.adapters.supabase.reads import SupabaseReads
from server.adapters.supabase.tokens import SupabaseTokenVerifier
from server.doctor.supabase import judge_issuer
from server.ports import LinkToken, MailCode, MailProof, PkceCode, Principal, TokenPair
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.faults.http_faults import FaultProxy
from tests.stack.chat_client import TIMEOUT
from tests.stack.own_supabase import own_supabase
from tests.stack.running_stack import RunningStack
from tests.stack.supabase_users import PASSWORD, client_of, fresh_address, token_of


@pytest.fixture
async def client(supabase_env: dict[str, str]) -> AsyncIterator[SupabaseClient]:
    client = client_of(supabase_env)
    yield client
    await client.aclose()


@pytest.fixture
def identity(client: SupabaseClient) -> SupabaseIdentity:
    return SupabaseIdentity(client)


async def registered(identity: SupabaseIdentity, email: str | None = None) -> TokenPair:
    pair = await identity.sign_up(email or fresh_address(), PASSWORD, "Ann")
    assert pair
    return pair


async def verified(client: SupabaseClient, pair: TokenPair) -> Principal:
    return await SupabaseTokenVerifier(client).verify(pair.access_token.get_secret_value())


async def test_a_new_user_is_signed_in_and_the_token_verifies(
    client: SupabaseClient, identity: SupabaseIdentity
) -> None:
    pair = await registered(identity)
    principal = await verified(client, pair)

    assert (principal.user_id, principal.email, principal.expires_at) == (pair.user_id, pair.email, pair.expires_at)
    assert pair.expires_in == 3600
    claims = jwt.decode(pair.access_token.get_secret_value(), options={"verify_signature": False})
    assert claims["user_metadata"]["name"] == "Ann"


async def test_signing_in_finds_the_same_user_whatever_the_case_of_the_address(identity: SupabaseIdentity) -> None:
    email = fresh_address()
    pair = await registered(identity, email)
    assert (await identity.sign_in(email.upper(), PASSWORD)).user_id == pair.user_id


async def test_an_address_registers_once(identity: SupabaseIdentity) -> None:
    email = fresh_address()
    answers = await asyncio.gather(*(identity.sign_up(email, PASSWORD, None) for _ in range(4)))
    assert sum(answer is not None for answer in answers) == 1


async def test_a_project_that_confirms_addresses_signs_nobody_in_yet(stack: RunningStack) -> None:
    with own_supabase(stack, "confirming_tests", confirm_email=True) as env:
        client = client_of(env)
        identity, email = SupabaseIdentity(client), fresh_address()
        try:
            assert await identity.sign_up(email, PASSWORD, None) is None
            assert await identity.sign_up(email, PASSWORD, None) is None  # though an e-mail was sent a moment ago
            with pytest.raises(PlatformError, match="Confirm your e-mail address") as refusal:
                await identity.sign_in(email, PASSWORD)
            assert refusal.value.code is ErrorCode.UNAUTHORIZED
        finally:
            await client.aclose()


@pytest.mark.parametrize("password", ["abc1", "onlyletters", "12345678"])
async def test_weak_passwords_are_refused_with_the_reason(identity: SupabaseIdentity, password: str) -> None:
    with pytest.raises(PlatformError, match="Password should") as refusal:
        await identity.sign_up(fresh_address(), SecretStr(password), None)
    assert refusal.value.code is ErrorCode.WEAK_PASSWORD


@pytest.mark.parametrize(
    ("email", "password"),
    [("no-address", "Passw0rd123"), ("a@example.com", "a1" * 50), ("a\0@example.com", "Passw0rd1")],
)
async def test_input_that_auth_rejects_is_an_invalid_request(
    identity: SupabaseIdentity, email: str, password: str
) -> None:
    with pytest.raises(PlatformError) as refusal:
        await identity.sign_up(email, SecretStr(password), None)
    assert refusal.value.code is ErrorCode.INVALID_REQUEST


async def test_a_wrong_password_and_an_unknown_address_get_the_same_answer(identity: SupabaseIdentity) -> None:
    email = fresh_address()
    await registered(identity, email)
    refusals = []
    for address, password in ((email, SecretStr("Wr0ng-password")), (fresh_address(), PASSWORD)):
        with pytest.raises(PlatformError) as refusal:
            await identity.sign_in(address, password)
        refusals.append((refusal.value.code, refusal.value.message))
    assert refusals[0] == refusals[1]
    assert refusals[0][0] is ErrorCode.UNAUTHORIZED


async def test_refreshing_gives_a_new_pair_for_the_same_user(
    client: SupabaseClient, identity: SupabaseIdentity
) -> None:
    pair = await registered(identity)
    fresh = await identity.refresh(pair.refresh_token)

    assert fresh.user_id == pair.user_id
    assert fresh.refresh_token != pair.refresh_token
    assert (await verified(client, fresh)).user_id == pair.user_id


@pytest.mark.parametrize("token", ["", "bogus", "a.b.c"])
async def test_an_unknown_refresh_token_is_unauthorized(identity: SupabaseIdentity, token: str) -> None:
    with pytest.raises(PlatformError) as refusal:
        await identity.refresh(SecretStr(token))
    assert refusal.value.code is ErrorCode.UNAUTHORIZED


async def test_signing_out_ends_the_session_and_may_be_repeated(
    client: SupabaseClient, identity: SupabaseIdentity
) -> None:
    pair = await registered(identity)
    other = await identity.sign_in(pair.email, PASSWORD)
    principal = await verified(client, pair)

    await identity.sign_out(principal, "local")
    await identity.sign_out(principal, "local")

    with pytest.raises(PlatformError) as refusal:
        await identity.refresh(pair.refresh_token)
    assert refusal.value.code is ErrorCode.UNAUTHORIZED
    assert await identity.refresh(other.refresh_token)


async def test_signing_out_everywhere_ends_every_session(client: SupabaseClient, identity: SupabaseIdentity) -> None:
    pair = await registered(identity)
    other = await identity.sign_in(pair.email, PASSWORD)
    await identity.sign_out(await verified(client, pair), "global")

    with pytest.raises(PlatformError):
        await identity.refresh(other.refresh_token)


async def test_users_signing_in_at_once_keep_their_identities(
    client: SupabaseClient, identity: SupabaseIdentity
) -> None:
    pairs = [await registered(identity) for _ in range(3)]
    again = await asyncio.gather(*(identity.sign_in(pair.email, PASSWORD) for pair in pairs * 3))
    principals = await asyncio.gather(*(verified(client, pair) for pair in again))

    assert [principal.user_id for principal in principals] == [pair.user_id for pair in pairs * 3]
    assert await client.call("unowned_work", limit=1) is not None  # still the service role


async def test_keys_are_no_access_tokens(client: SupabaseClient, supabase_env: dict[str, str]) -> None:
    for key in ("SUPABASE_ANON_KEY", "SUPABASE_SERVICE_KEY"):
        with pytest.raises(PlatformError) as refusal:
            await SupabaseTokenVerifier(client).verify(supabase_env[key])
        assert refusal.value.code is ErrorCode.UNAUTHORIZED


async def test_a_project_with_a_custom_hostname_works_and_the_doctor_reports_its_issuer(
    supabase_env: dict[str, str],
) -> None:
    """As with a custom hostname: tokens name the project's own address, and SUPABASE_URL is another one."""
    own = f"{supabase_env['SUPABASE_URL']}/auth/v1"
    async with FaultProxy(supabase_env["SUPABASE_URL"]) as elsewhere:
        env = supabase_env | {"SUPABASE_URL": elsewhere.url}
        async with aclosing(client_of(env)) as client, httpx.AsyncClient(timeout=TIMEOUT) as http:
            principal = await verified(client, await registered(SupabaseIdentity(client)))
            assert await SupabaseReads(client).profile(principal) is None
            keys = SecretStr(env["SUPABASE_ANON_KEY"]), SecretStr(env["SUPABASE_SERVICE_KEY"])
            issuer = await SupabaseInspection(elsewhere.url, *keys, http).issuer()
    assert jwt.decode(token_of(principal), options={"verify_signature": False})["iss"] == issuer == own
    finding = judge_issuer(issuer, own=own_issuer(elsewhere.url), configured=None)
    assert own in finding.message


async def test_mails_that_auth_does_not_send_again_yet_are_answered_like_those_of_unknown_addresses(
    stack: RunningStack,
) -> None:
    with own_supabase(stack, "resending_tests", confirm_email=True) as env:
        async with aclosing(client_of(env)) as client:
            identity, email = SupabaseIdentity(client), fresh_address()
            await identity.sign_up(email, PASSWORD, None)
            for address in (email, fresh_address()):
                await identity.resend(address, "signup")
                await identity.recover(address)


async def test_a_password_and_an_address_are_changed_with_the_users_token(
    client: SupabaseClient, identity: SupabaseIdentity
) -> None:
    pair, taken = await registered(identity), (await registered(identity)).email
    await identity.set_password(pair.access_token, SecretStr("An0ther-passw0rd"), PASSWORD)
    assert await identity.sign_in(pair.email, SecretStr("An0ther-passw0rd"))
    assert not await identity.set_email(pair.access_token, fresh_address())
    assert not await identity.set_email(pair.access_token, taken)
    with pytest.raises(PlatformError, match="Password should") as refusal:
        await identity.set_password(pair.access_token, SecretStr("short"), None)
    assert refusal.value.code is ErrorCode.WEAK_PASSWORD
    await identity.sign_out(await verified(client, pair), "local")
    with pytest.raises(PlatformError) as refusal:
        await identity.set_password(pair.access_token, PASSWORD, None)
    assert refusal.value.code is ErrorCode.UNAUTHORIZED


@pytest.mark.parametrize(
    "proof",
    [
        MailCode("nobody@example.com", SecretStr("123456"), "signup"),
        LinkToken(SecretStr("0" * 56), "recovery"),
        PkceCode(SecretStr(str(uuid.uuid4())), SecretStr("a" * 43)),
    ],
)
async def test_a_proof_that_auth_never_sent_is_refused(identity: SupabaseIdentity, proof: MailProof) -> None:
    with pytest.raises(PlatformError) as refusal:
        await identity.verify_otp(proof)
    assert refusal.value.code is ErrorCode.OTP_EXPIRED
