"""Access tokens: which are accepted or refused, and why."""

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import structlog
from pydantic import SecretStr

from server.adapters.supabase.faults import Faults
from server.ports import ALL_SCOPES, Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.unit.adapters.supabase.token_bench import (
    ANN,
    FIRST,
    JWKS,
    NOW,
    RSA,
    SECOND,
    SECRET,
    USER,
    Bench,
    Key,
    ticket,
)


@pytest.mark.parametrize("key", [FIRST, RSA], ids=["ES256", "RS256"])
async def test_a_published_key_verifies_its_tokens(bench: Bench, key: Key) -> None:
    bench.publish(key)
    token = key.sign(bench.claims())

    principal = await bench.verifier.verify(token)

    assert principal == Principal(ANN, "ann@example.com", SecretStr(token), NOW + timedelta(hours=1))


async def test_a_token_says_how_and_when_its_user_signed_in(bench: Bench) -> None:
    methods = [{"method": "password", "timestamp": 1764370000}, {"method": "totp", "timestamp": 1764370060.5}]
    claims = bench.claims(amr=methods, aal="aal2", is_anonymous=True)
    principal = await bench.verifier.verify(FIRST.sign(claims))
    assert [(one.method, one.at.timestamp()) for one in principal.amr] == [
        ("totp", 1764370060.5),
        ("password", 1764370000),
    ]
    assert (principal.aal, principal.is_anonymous, principal.scopes) == ("aal2", True, ALL_SCOPES)


@pytest.mark.parametrize(
    "amr", [None, "password", {}, ["password"], [{"method": 1, "timestamp": 1}], [{"method": "otp"}]]
)
@pytest.mark.parametrize("at", ["now", True, -1, 1e300, [], None])
async def test_an_unusual_claim_about_the_sign_in_proves_nothing(bench: Bench, amr: Any, at: Any) -> None:
    timed = [{"method": "password", "timestamp": at}]
    claims = bench.claims(aal="aal9", is_anonymous="true") | {"amr": timed if amr is None else amr}
    principal = await bench.verifier.verify(FIRST.sign(claims))
    assert (principal.amr, principal.aal, principal.is_anonymous) == ((), "aal1", False)


@pytest.mark.parametrize(
    ("claimed", "known"),
    [(ANN, ANN), (None, None), ("", None), ("s" * 5000, None), (7, None), ([ANN], None), ({}, None), (True, None)],
)
async def test_a_token_belongs_to_the_sign_in_that_it_names(bench: Bench, claimed: object, known: str | None) -> None:
    principal = await bench.verifier.verify(FIRST.sign(bench.claims(session_id=claimed)))
    assert (principal.user_id, principal.session_id) == (ANN, known)


async def test_a_user_without_an_address_is_accepted(bench: Bench) -> None:
    assert (await bench.verifier.verify(FIRST.sign(bench.claims(email=None)))).email == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "anon"},
        {"aud": None},
        {"iss": "https://elsewhere.example/auth/v1"},
        {"iss": None},
        {"exp": None},
        {"sub": None},
        {"sub": "not-a-uuid"},
        {"role": "service_role"},
        {"role": "anon"},
        {"role": None},
        {"exp": 1e300},
        {"exp": 10**400},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": 253402300800},
        {"exp": "soon"},
        {"exp": "4102444800"},
        {"exp": [1]},
        {"exp": {}},
        {"iat": 1e300},
        {"iat": "now"},
        {"iat": {}},
        {"iat": float("nan")},
        {"nbf": 1e300},
        {"nbf": "now"},
        {"nbf": []},
        {"aud": 5},
        {"aud": {"authenticated": 1}},
        {"aud": ["authenticated", 5]},
        {"iss": 5},
        {"iss": ["https://elsewhere.example/auth/v1"]},
        {"iss": {}},
        {"role": ["authenticated"]},
        {"role": {}},
        {"sub": 5},
        {"sub": [ANN]},
        {"sub": {}},
        {"sub": "1" * 5000},
        {"sub": f"urn:uuid:{ANN}"},
        {"sub": f"{{{ANN}}}"},
        {"sub": ANN.replace("-", "")},
        {"sub": "\ud800"},
    ],
    ids=lambda changes: str(changes)[:60],
)
async def test_wrong_missing_and_unusual_claims_are_refused(bench: Bench, changes: dict[str, Any]) -> None:
    """Also if Supabase is asked, and answers that the token is valid."""
    assert await bench.refusal(FIRST.raw(bench.claims(**changes))) is ErrorCode.UNAUTHORIZED
    if "iss" not in changes:
        bench.publish()
        bench.project.answers[USER] = (200, {"id": ANN})
        assert (
            await bench.refusal(FIRST.raw(bench.claims(**changes)), bench.with_secret(None)) is ErrorCode.UNAUTHORIZED
        )


@pytest.mark.parametrize("email", [5, ["a@example.com"], {}, "a\0@example.com", "\ud800@example.com", ""])
async def test_an_invalid_address_is_empty(bench: Bench, email: object) -> None:
    assert (await bench.verifier.verify(FIRST.raw(bench.claims(email=email)))).email == ""


async def test_a_users_id_has_one_form(bench: Bench) -> None:
    assert (await bench.verifier.verify(FIRST.sign(bench.claims(sub=ANN.upper())))).user_id == ANN


@pytest.mark.parametrize(
    "text",
    [
        "[" * 4000,
        '{"exp":' * 1000,
        '{"exp": 1' + "0" * 5000 + "}",
        "null",
        "[]",
        '"text"',
        "5",
        "{",
        "",
        '{"kid": {}}',
        '{"alg": {}, "kid": 5}',
        '{"alg": "ES256", "crit": [5]}',
    ],
    ids=lambda text: text[:20],
)
async def test_every_unusual_header_or_claim_is_refused_without_an_error(bench: Bench, text: str) -> None:
    """Signed or not: no token makes the server fail."""
    odd = base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
    head, claims, signature = FIRST.sign(bench.claims()).split(".")
    tokens = [f"{odd}.{claims}.{signature}", f"{head}.{odd}.{signature}", f"{head}.{claims}.{odd}", FIRST.raw(text)]
    for verifier in (bench.verifier, bench.with_secret(SECRET)):
        for token in tokens:
            assert await bench.refusal(token, verifier) is ErrorCode.UNAUTHORIZED


async def test_an_expired_token_is_token_expired_after_five_seconds_of_leeway(bench: Bench) -> None:
    now = int(datetime.now(UTC).timestamp())
    assert await bench.verifier.verify(FIRST.sign(bench.claims(exp=now - 1)))
    assert await bench.refusal(FIRST.sign(bench.claims(exp=now - 30))) is ErrorCode.TOKEN_EXPIRED


async def test_a_fresh_token_is_accepted_on_a_server_whose_clock_is_slow(bench: Bench) -> None:
    """If it is valid by PostgREST's clock, which checks every read."""
    bench.project.ahead, bench.project.answers["/rest/v1/messages"] = timedelta(minutes=10), (200, [])
    await bench.client.read(SecretStr("a.b.c"), lambda rest: rest.from_("messages").select("id"))
    issued = int((NOW + bench.project.ahead).timestamp())
    assert await bench.verifier.verify(FIRST.sign(bench.claims(iat=issued, nbf=issued)))


@pytest.mark.parametrize("claim", ["iat", "nbf"])
async def test_a_token_that_is_not_valid_yet_is_refused_as_temporary(bench: Bench, claim: str) -> None:
    def begins(seconds: int) -> str:
        return FIRST.sign(bench.claims(**{claim: int(time.time()) + seconds}))

    assert await bench.verifier.verify(begins(25))
    for seconds in (45, 600, 10**9):
        with structlog.testing.capture_logs() as logged, pytest.raises(PlatformError) as refusal:
            await bench.verifier.verify(begins(seconds))
        assert (refusal.value.code, refusal.value.retryable) == (ErrorCode.SUPABASE_UNAVAILABLE, True)
        assert refusal.value.retry_after is not None
        assert 10 < refusal.value.retry_after <= 60
        bench.client.faults = Faults()
        assert [line["event"] for line in logged if line["log_level"] == "error"] == ["supabase.token_of_the_future"]
    forgery = Key("first").sign(bench.claims(**{claim: int(time.time()) + 600}))
    assert await bench.refusal(forgery) is ErrorCode.UNAUTHORIZED
    expired = FIRST.sign(bench.claims(**{claim: int(time.time()) + 600}, exp=1))
    assert await bench.refusal(expired) is ErrorCode.TOKEN_EXPIRED


async def test_an_expired_forgery_is_a_forgery(bench: Bench) -> None:
    forger = Key("first")
    assert await bench.refusal(forger.sign(bench.claims(exp=1))) is ErrorCode.UNAUTHORIZED


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "....", "é.b.c", "a" * 20_000, "eyJhbGciOiJub25lIn0.e30."])
async def test_garbage_is_refused_without_a_request(bench: Bench, token: str) -> None:
    await bench.verifier.verify(FIRST.sign(bench.claims()))
    asked = len(bench.project.seen)
    assert await bench.refusal(token) is ErrorCode.UNAUTHORIZED
    assert len(bench.project.seen) == asked


@pytest.mark.parametrize("secret", [None, SECRET])
async def test_a_ticket_is_not_an_access_token_even_if_one_secret_signs_both(bench: Bench, secret: str | None) -> None:
    assert await bench.refusal(ticket(), bench.with_secret(secret)) is ErrorCode.UNAUTHORIZED


async def test_unsigned_tokens_are_refused_even_under_a_known_key_id(bench: Bench) -> None:
    token = jwt.encode(bench.claims(), "", "none", headers={"kid": "first"})
    for verifier in (bench.verifier, bench.with_secret(SECRET)):
        assert await bench.refusal(token, verifier) is ErrorCode.UNAUTHORIZED


async def test_a_public_key_is_not_accepted_as_a_shared_secret(bench: Bench) -> None:
    """The classic confusion: HS256 with the published key as its secret."""
    head = {"kid": "first", "alg": "HS256", "typ": "JWT"}
    signer = jwt.PyJWS()
    algorithm = signer.get_algorithm_by_name("HS256")
    algorithm.prepare_key = lambda key: key  # type: ignore[method-assign]
    token = signer.encode(json.dumps(bench.claims()).encode(), FIRST.pem, "HS256", headers=head)
    for verifier in (bench.verifier, bench.with_secret(SECRET)):
        assert await bench.refusal(token, verifier) is ErrorCode.UNAUTHORIZED


async def test_one_key_does_not_verify_under_the_id_of_another(bench: Bench) -> None:
    bench.publish(FIRST, SECOND)
    token = jwt.encode(bench.claims(), SECOND.private, "ES256", headers={"kid": "first"})
    assert await bench.refusal(token) is ErrorCode.UNAUTHORIZED


async def test_published_symmetric_keys_are_ignored(bench: Bench) -> None:
    leaked = {"kty": "oct", "kid": "oct", "alg": "HS256", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}
    bench.project.answers[JWKS] = (200, {"keys": [leaked, FIRST.published, {"kty": "strange"}]})
    token = jwt.encode(bench.claims(), b"secret-secret-secret-secret-secret", "HS256", headers={"kid": "oct"})
    assert await bench.refusal(token) is ErrorCode.UNAUTHORIZED
    assert await bench.verifier.verify(FIRST.sign(bench.claims()))
