"""Classifying Auth's refusals and failures, in the wording of hosted Supabase."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
import structlog
from aiohttp import web
from pydantic import SecretStr

from server.adapters.supabase.client import CONCURRENT_AUTH_CALLS, CONCURRENT_CALLS, SupabaseClient
from server.adapters.supabase.faults import Faults
from server.adapters.supabase.identity import SupabaseIdentity
from server.ports import LinkToken, MailCode, MailProof, PkceCode, Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.unit.adapters.supabase.project import ANON, SERVICE, Project

SIGN_UP, TOKEN, LOGOUT = "/auth/v1/signup", "/auth/v1/token", "/auth/v1/logout"
VERIFY, RECOVER, RESEND, USER_PATH = "/auth/v1/verify", "/auth/v1/recover", "/auth/v1/resend", "/auth/v1/user"
USER = {
    "id": "01a209a8-402d-777c-bbf1-9331244edae0",
    "aud": "authenticated",
    "email": "ann@example.com",
    "app_metadata": {},
    "user_metadata": {},
    "created_at": "2026-01-01T00:00:00Z",
}
SESSION = {
    "access_token": "a.b.c",
    "refresh_token": "r-1",
    "token_type": "bearer",
    "expires_in": 3600,
    "expires_at": int(time.time()) + 3600,
    "user": USER,
}
PASSWORD = SecretStr("Passw0rd123")
PRINCIPAL = Principal(str(USER["id"]), "ann@example.com", SecretStr("a.b.c"), datetime(2030, 1, 1, tzinfo=UTC))


@pytest.fixture
def identity(client: SupabaseClient) -> SupabaseIdentity:
    return SupabaseIdentity(client, "https://chat.example/welcome")


def token() -> SecretStr:
    """An access token that has not expired."""
    return SecretStr(jwt.encode({"exp": 2_000_000_000, "sub": USER["id"]}, "a key of the tests that is long enough"))


def refusal(code: str, message: str = "Auth's own words") -> dict[str, Any]:
    return {"code": code, "error_code": code, "msg": message, "message": message}


async def test_a_sign_up_sends_the_name_and_the_target_of_the_confirmation_link(
    project: Project, identity: SupabaseIdentity
) -> None:
    project.answers[SIGN_UP] = (200, SESSION)

    pair = await identity.sign_up("ann@example.com", PASSWORD, "Ann")

    [request] = project.seen
    body = await request.json()
    assert (body["email"], body["data"]) == ("ann@example.com", {"name": "Ann"})
    assert request.query["redirect_to"] == "https://chat.example/welcome"
    assert (request.headers["apikey"], request.headers.get("Authorization")) == (ANON, None)
    assert pair
    assert (pair.user_id, pair.refresh_token.get_secret_value(), pair.expires_in) == (USER["id"], "r-1", 3600)
    assert int(pair.expires_at.timestamp()) == SESSION["expires_at"]
    assert "r-1" not in repr(pair)


@pytest.mark.parametrize(
    ("claims", "session_id"),
    [
        ({"session_id": "7B2C5A5E-3F5C-4E0B-9D0B-2B1F4C6D8E9F"}, "7b2c5a5e-3f5c-4e0b-9d0b-2b1f4c6d8e9f"),
        ({"session_id": "'; drop table --"}, None),
        ({"session_id": ["7b2c5a5e-3f5c-4e0b-9d0b-2b1f4c6d8e9f"]}, None),
        ({}, None),
    ],
)
async def test_tokens_name_the_sign_in_that_their_claims_name(
    project: Project, identity: SupabaseIdentity, claims: dict[str, Any], session_id: str | None
) -> None:
    access_token = jwt.encode(claims, "a secret that is long enough for this")
    project.answers[TOKEN] = (200, SESSION | {"access_token": access_token})
    assert (await identity.sign_in("ann@example.com", PASSWORD)).session_id == session_id


async def test_tokens_that_cannot_be_read_name_no_sign_in(project: Project, identity: SupabaseIdentity) -> None:
    project.answers[TOKEN] = (200, SESSION | {"access_token": "a.b.c"})
    assert (await identity.sign_in("ann@example.com", PASSWORD)).session_id is None


async def test_a_sign_up_without_a_session_requires_a_confirmation(
    project: Project, identity: SupabaseIdentity
) -> None:
    project.answers[SIGN_UP] = (200, USER | {"identities": []})
    assert await identity.sign_up("ann@example.com", PASSWORD, None) is None


@pytest.mark.parametrize("code", ["user_already_exists", "email_exists"])
async def test_a_registered_address_is_answered_like_one_to_confirm(
    project: Project, identity: SupabaseIdentity, code: str
) -> None:
    project.answers[SIGN_UP] = (422, refusal(code))
    assert await identity.sign_up("ann@example.com", PASSWORD, None) is None


async def test_a_sign_up_that_conflicts_with_another_is_retried_once(
    project: Project, identity: SupabaseIdentity
) -> None:
    def losing(_: web.BaseRequest) -> dict[str, Any]:
        project.answers[SIGN_UP] = (422, refusal("user_already_exists"))
        return refusal("unexpected_failure", "Database error saving new user")

    project.answers[SIGN_UP] = (500, losing)
    assert await identity.sign_up("ann@example.com", PASSWORD, None) is None


@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [
        (400, "invalid_credentials", ErrorCode.UNAUTHORIZED),
        (400, "email_not_confirmed", ErrorCode.UNAUTHORIZED),
        (403, "user_banned", ErrorCode.ACCOUNT_BLOCKED),
        (429, "over_request_rate_limit", ErrorCode.RATE_LIMITED),
        (400, "validation_failed", ErrorCode.INVALID_REQUEST),
        (400, "email_address_invalid", ErrorCode.INVALID_REQUEST),
        (422, "signup_disabled", ErrorCode.REGISTRATION_CLOSED),
        (400, "captcha_failed", ErrorCode.CAPTCHA_FAILED),
        (401, "insufficient_aal", ErrorCode.MFA_REQUIRED),
        (500, "unexpected_failure", ErrorCode.SUPABASE_UNAVAILABLE),
        (504, "request_timeout", ErrorCode.SUPABASE_UNAVAILABLE),
    ],
)
async def test_each_refusal_has_its_error_and_is_not_retried(
    project: Project, identity: SupabaseIdentity, status: int, code: str, meaning: ErrorCode
) -> None:
    project.answers[TOKEN] = (status, refusal(code))

    with pytest.raises(PlatformError) as refused:
        await identity.sign_in("ann@example.com", PASSWORD)

    assert refused.value.code is meaning
    assert project.requests(TOKEN) == 1


async def test_a_weak_password_has_auths_reason(project: Project, identity: SupabaseIdentity) -> None:
    weak = refusal("weak_password", "Password should be at least 8 characters.")
    project.answers[SIGN_UP] = (422, weak | {"weak_password": {"reasons": ["length"]}})
    with pytest.raises(PlatformError, match="at least 8 characters") as refused:
        await identity.sign_up("ann@example.com", PASSWORD, None)
    assert refused.value.code is ErrorCode.WEAK_PASSWORD


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "refresh_token_not_found"),
        (400, "refresh_token_already_used"),
        (400, "session_expired"),
        (403, "session_not_found"),
        (400, "validation_failed"),
    ],
)
async def test_an_invalid_refresh_token_is_unauthorized(
    project: Project, identity: SupabaseIdentity, status: int, code: str
) -> None:
    project.answers[TOKEN] = (status, refusal(code))
    with pytest.raises(PlatformError) as refused:
        await identity.refresh(SecretStr("spent"))
    assert refused.value.code is ErrorCode.UNAUTHORIZED


@pytest.mark.parametrize("message", ["Invalid API key", "Unregistered API key", "Invalid authentication credentials"])
async def test_a_wrong_key_of_ours_is_supabase_unavailable_for_every_call(
    project: Project, identity: SupabaseIdentity, client: SupabaseClient, message: str
) -> None:
    body = {"message": message, "hint": "Double check your Supabase API key."}
    project.answers |= {TOKEN: (401, body), SIGN_UP: (401, body), LOGOUT: (401, body)}
    for ask in (
        identity.sign_in("ann@example.com", PASSWORD),
        identity.sign_up("ann@example.com", PASSWORD, None),
        identity.refresh(SecretStr("r-1")),
        identity.sign_out(PRINCIPAL, "local"),
    ):
        client.faults = Faults()
        with structlog.testing.capture_logs() as logged, pytest.raises(PlatformError) as refused:
            await ask
        assert refused.value.code is ErrorCode.SUPABASE_UNAVAILABLE
        told = [(line["event"], line["about"]) for line in logged if line["log_level"] == "error"]
        assert told == [("supabase.key_refused", "SUPABASE_ANON_KEY")]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_signing_out_of_an_ended_session_is_not_an_error(
    project: Project, identity: SupabaseIdentity, status: int
) -> None:
    project.answers[LOGOUT] = (status, refusal("session_not_found"))
    await identity.sign_out(PRINCIPAL, "local")


@pytest.mark.parametrize(
    ("status", "code", "events"),
    [
        (409, "conflict", []),
        (401, "no_authorization", ["supabase.auth_refused"]),
        (403, "not_admin", ["supabase.auth_refused"]),
        (404, "", ["supabase.auth_refused"]),
        (405, "", ["supabase.auth_refused"]),
        (415, "bad_content_type", ["supabase.auth_refused"]),
    ],
)
async def test_an_unexpected_refusal_of_auth_is_supabase_unavailable(
    project: Project, identity: SupabaseIdentity, client: SupabaseClient, status: int, code: str, events: list[str]
) -> None:
    project.answers[TOKEN] = (status, refusal(code))
    with structlog.testing.capture_logs() as logged, pytest.raises(PlatformError) as refused:
        await identity.refresh(SecretStr("r-1"))
    assert refused.value.code is ErrorCode.SUPABASE_UNAVAILABLE
    assert refused.value.retry_after
    assert [line["event"] for line in logged if line["log_level"] == "error"] == events
    assert not client.guard.breaker.is_open


async def test_auth_behind_a_broken_gateway_is_unavailable(project: Project, identity: SupabaseIdentity) -> None:
    project.answers[TOKEN] = (502, "<html>Bad gateway</html>")
    with pytest.raises(PlatformError) as failure:
        await identity.sign_in("ann@example.com", PASSWORD)
    assert failure.value.code is ErrorCode.SUPABASE_UNAVAILABLE


@pytest.mark.parametrize("body", ["<html>All is well</html>", {}, [], {"access_token": "a.b.c"}])
async def test_an_unreadable_answer_to_a_sign_up_is_supabase_unavailable(
    project: Project, identity: SupabaseIdentity, body: object
) -> None:
    project.answers[SIGN_UP] = (200, body)
    with pytest.raises(PlatformError) as failure:
        await identity.sign_up("ann@example.com", PASSWORD, None)
    assert failure.value.code is ErrorCode.SUPABASE_UNAVAILABLE


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
async def test_the_clients_address_is_forwarded_to_auth(
    project: Project, identity: SupabaseIdentity, address: str
) -> None:
    project.answers |= {SIGN_UP: (200, SESSION), TOKEN: (200, SESSION)}

    await identity.sign_up("ann@example.com", PASSWORD, "Ann", address=address)
    await identity.sign_in("ann@example.com", PASSWORD, address=address)
    await identity.refresh(SecretStr("r-1"), address=address)

    told = [
        (request.headers["apikey"], request.headers.get("Authorization"), request.headers["Sb-Forwarded-For"])
        for request in project.seen
    ]
    assert told == [(SERVICE, None, address)] * 3


async def test_without_an_address_or_a_secret_key_no_address_is_forwarded(project: Project) -> None:
    project.answers[TOKEN] = (200, SESSION)
    legacy = SupabaseClient(project.url, SecretStr(ANON), SecretStr("eyJ.legacy.key"))
    modern = project.client()

    await SupabaseIdentity(legacy).sign_in("ann@example.com", PASSWORD, address="192.0.2.1")
    await SupabaseIdentity(modern).sign_in("ann@example.com", PASSWORD)

    assert [(r.headers["apikey"], r.headers.get("Sb-Forwarded-For")) for r in project.seen] == [(ANON, None)] * 2
    await legacy.aclose()
    await modern.aclose()


CAPTCHA = {"gotrue_meta_security": {"captcha_token": "solved"}}


async def test_every_call_that_auth_protects_by_a_captcha_passes_its_token_on(
    project: Project, identity: SupabaseIdentity
) -> None:
    project.answers |= {
        SIGN_UP: (200, SESSION),
        TOKEN: (200, SESSION),
        VERIFY: (200, SESSION),
        RECOVER: (200, {}),
        RESEND: (200, {}),
    }
    await identity.sign_up("ann@example.com", PASSWORD, None, captcha_token="solved")
    await identity.sign_in("ann@example.com", PASSWORD, captcha_token="solved")
    await identity.recover("ann@example.com", captcha_token="solved")
    await identity.resend("ann@example.com", "signup", captcha_token="solved")
    code = MailCode("ann@example.com", SecretStr("123456"), "signup")
    await identity.verify_otp(code, captcha_token="solved")

    for request in project.seen:
        assert CAPTCHA.items() <= (await request.json()).items()


async def test_mails_lead_to_the_configured_page(project: Project, identity: SupabaseIdentity) -> None:
    project.answers |= {RECOVER: (200, {}), RESEND: (200, {}), USER_PATH: (200, USER)}
    await identity.recover("ann@example.com")
    await identity.resend("ann@example.com", "email_change")
    await identity.set_email(token(), "new@example.com")

    writes = [request for request in project.seen if request.method != "GET"]
    assert [request.path for request in writes] == [RECOVER, RESEND, USER_PATH]
    assert {request.query["redirect_to"] for request in writes} == {"https://chat.example/welcome"}


@pytest.mark.parametrize(
    ("proof", "sent"),
    [
        (
            MailCode("ann@example.com", SecretStr("123456"), "email"),
            {"email": "ann@example.com", "token": "123456", "type": "email"},
        ),
        (LinkToken(SecretStr("a-hash"), "recovery"), {"token_hash": "a-hash", "type": "recovery"}),
    ],
)
async def test_a_mails_code_or_token_signs_in(
    project: Project, identity: SupabaseIdentity, proof: MailProof, sent: dict[str, str]
) -> None:
    project.answers[VERIFY] = (200, SESSION)
    pair = await identity.verify_otp(proof)
    assert pair
    assert pair.user_id == USER["id"]
    [request] = project.seen
    assert sent.items() <= (await request.json()).items()


async def test_a_pkce_code_is_exchanged_with_its_verifier(project: Project, identity: SupabaseIdentity) -> None:
    project.answers[TOKEN] = (200, SESSION)
    assert await identity.verify_otp(PkceCode(SecretStr("a-code"), SecretStr("a-verifier")))
    [request] = project.seen
    assert request.query["grant_type"] == "pkce"
    assert await request.json() == {"auth_code": "a-code", "code_verifier": "a-verifier"}


async def test_the_first_of_two_confirmations_of_a_new_address_signs_nobody_in(
    project: Project, identity: SupabaseIdentity
) -> None:
    project.answers[VERIFY] = (200, {"code": "200", "msg": "Confirmation link accepted."})
    assert await identity.verify_otp(LinkToken(SecretStr("a-hash"), "email_change")) is None


@pytest.mark.parametrize("code", ["otp_expired", "flow_state_not_found", "flow_state_expired", "bad_code_verifier"])
async def test_a_used_or_old_code_has_its_error(project: Project, identity: SupabaseIdentity, code: str) -> None:
    project.answers[VERIFY] = (403, refusal(code))
    with pytest.raises(PlatformError) as refused:
        await identity.verify_otp(LinkToken(SecretStr("a-hash"), "signup"))
    assert refused.value.code is ErrorCode.OTP_EXPIRED


OF_USER = "For security purposes, you can only request this after 42 seconds."
OF_PROJECT = "email rate limit exceeded"


async def test_limits_of_mails_do_not_tell_that_an_account_exists(project: Project, identity: SupabaseIdentity) -> None:
    """Auth applies them only where it would send a mail."""
    for words in (OF_USER, OF_PROJECT):
        limit = (429, refusal("over_email_send_rate_limit", words))
        project.answers |= {RECOVER: limit, RESEND: limit}
        await identity.recover("ann@example.com")
        await identity.resend("ann@example.com", "signup")
    project.answers[SIGN_UP] = (429, refusal("over_email_send_rate_limit", OF_USER))
    assert await identity.sign_up("ann@example.com", PASSWORD, None) is None


async def test_a_sign_up_that_the_projects_limit_of_mails_prevents_is_refused(
    project: Project, identity: SupabaseIdentity
) -> None:
    project.answers[SIGN_UP] = (429, refusal("over_email_send_rate_limit", OF_PROJECT))
    with pytest.raises(PlatformError) as refused:
        await identity.sign_up("ann@example.com", PASSWORD, None)
    assert refused.value.code is ErrorCode.RATE_LIMITED


async def test_another_users_address_is_answered_like_one_to_confirm(
    project: Project, identity: SupabaseIdentity
) -> None:
    def answer(request: web.BaseRequest) -> dict[str, Any]:
        return USER

    project.answers[USER_PATH] = (200, answer)
    assert not await identity.set_email(token(), "new@example.com")
    assert await identity.set_email(token(), "ANN@example.com")  # a project that confirms nothing has changed it
    assert [request.headers["Authorization"] for request in project.seen] == [
        f"Bearer {token().get_secret_value()}"
    ] * 4


async def test_a_password_is_set_with_the_users_own_token(project: Project, identity: SupabaseIdentity) -> None:
    project.answers[USER_PATH] = (200, USER)
    await identity.set_password(token(), SecretStr("Another-passw0rd"), SecretStr("Passw0rd123"))
    request = project.seen[-1]
    assert request.method == "PUT"
    assert await request.json() == {"password": "Another-passw0rd", "current_password": "Passw0rd123"}
    assert request.headers["Authorization"] == f"Bearer {token().get_secret_value()}"


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("same_password", ErrorCode.WEAK_PASSWORD),
        ("weak_password", ErrorCode.WEAK_PASSWORD),
        ("reauthentication_needed", ErrorCode.REAUTHENTICATION_REQUIRED),
        ("insufficient_aal", ErrorCode.MFA_REQUIRED),
        ("session_not_found", ErrorCode.UNAUTHORIZED),
    ],
)
async def test_a_refused_password_has_its_error(
    project: Project, identity: SupabaseIdentity, code: str, meaning: ErrorCode
) -> None:
    project.answers[USER_PATH] = (422, refusal(code) | {"weak_password": {"reasons": ["length"]}})
    with pytest.raises(PlatformError) as refused:
        await identity.set_password(token(), SecretStr("Another-passw0rd"), None)
    assert refused.value.code is meaning


async def test_a_burst_of_sign_ups_waits_in_slots_of_its_own_and_delays_no_turn(
    project: Project, client: SupabaseClient, identity: SupabaseIdentity
) -> None:
    slots_are_taken, answered = asyncio.Event(), asyncio.Event()

    async def slowly(_: web.BaseRequest) -> dict[str, Any]:
        if project.requests(SIGN_UP) == CONCURRENT_AUTH_CALLS:
            slots_are_taken.set()
        await answered.wait()
        return SESSION

    project.answers = {SIGN_UP: (200, slowly), "/rest/v1/rpc/work": (200, True)}
    async with asyncio.timeout(30), asyncio.TaskGroup() as burst:
        for number in range(CONCURRENT_CALLS):
            burst.create_task(identity.sign_up(f"{number}@example.com", PASSWORD, None))
        await slots_are_taken.wait()
        assert await client.call("work") is True
        assert project.requests(SIGN_UP) == CONCURRENT_AUTH_CALLS
        answered.set()
    assert project.requests(SIGN_UP) == CONCURRENT_CALLS
