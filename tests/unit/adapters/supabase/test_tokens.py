"""Access tokens: which are accepted or refused and why, and how keys are fetched, rotated and cached."""

import asyncio
import base64
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import SecretStr

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.faults import Faults
from server.adapters.supabase.issuers import DISCOVERY
from server.adapters.supabase.tokens import SupabaseTokenVerifier
from server.auth.tickets import Tickets
from server.ports import ALL_SCOPES, Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.database import MemoryDatabase
from tests.fakes.store import FakeSessionStore
from tests.unit.adapters.supabase.project import Project

JWKS, USER = "/auth/v1/.well-known/jwks.json", "/auth/v1/user"
ANN = "01a209a8-402d-777c-bbf1-9331244edae0"
SECRET = "a shared secret of at least thirty-two bytes"
NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class Key:
    """A signing key of the project."""

    id: str
    algorithm: str = "ES256"
    private: Any = field(init=False)

    def __post_init__(self) -> None:
        if self.algorithm == "ES256":
            self.private = ec.generate_private_key(ec.SECP256R1())
        else:
            self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def published(self) -> dict[str, Any]:
        algorithm = ECAlgorithm if self.algorithm == "ES256" else RSAAlgorithm
        public: dict[str, Any] = json.loads(algorithm.to_jwk(self.private.public_key()))
        return public | {"kid": self.id, "alg": self.algorithm, "use": "sig", "key_ops": ["verify"]}

    @property
    def pem(self) -> bytes:
        pem: bytes = self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return pem

    def raw(self, claims: dict[str, Any] | str) -> str:
        """Sign claims that a library would refuse."""
        text = claims if isinstance(claims, str) else json.dumps(claims)
        return jwt.PyJWS().encode(text.encode(), self.private, self.algorithm, headers={"kid": self.id})

    def sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.private, self.algorithm, headers={"kid": self.id})


FIRST, SECOND, RSA = Key("first"), Key("second"), Key("rsa", "RS256")


@dataclass
class Bench:
    """A verifier, its project, and a clock that tests advance."""

    project: Project
    client: SupabaseClient
    seconds: float = 1000.0

    def __post_init__(self) -> None:
        self.publish(FIRST)
        self.verifier = self.with_secret(None)

    def publish(self, *keys: Key) -> None:
        self.project.answers[JWKS] = (200, {"keys": [key.published for key in keys]})

    def with_secret(self, secret: str | None) -> SupabaseTokenVerifier:
        key = None if secret is None else SecretStr(secret)
        return SupabaseTokenVerifier(self.client, key, clock=lambda: self.seconds)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """A user's claims as hosted Supabase creates them; a change to None removes one."""
        claims = {
            "iss": f"{self.client.url}/auth/v1",
            "aud": "authenticated",
            "role": "authenticated",
            "sub": ANN,
            "email": "ann@example.com",
            "exp": int((NOW + timedelta(hours=1)).timestamp()),
            "iat": int(NOW.timestamp()),
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    async def refusal(self, token: str, verifier: SupabaseTokenVerifier | None = None) -> ErrorCode:
        with pytest.raises(PlatformError) as refusal:
            await (verifier or self.verifier).verify(token)
        return refusal.value.code


@pytest.fixture
def bench(project: Project, client: SupabaseClient) -> Bench:
    return Bench(project, client)


# --- Published keys --------------------------------------------------------------------------------------------------


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


def ticket() -> str:
    """A ticket that Ann could get with her token, on a server whose SECRET_KEY is the project's secret."""
    ann = Principal(ANN, "ann@example.com", SecretStr("t"), NOW + timedelta(hours=1), ANN)
    return Tickets(FakeSessionStore(MemoryDatabase()), SecretStr(SECRET)).issue(ann, "chat").text


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


# --- Issuers ---------------------------------------------------------------------------------------------------------


CUSTOM = "https://auth.example.com/auth/v1"


def _from_elsewhere(bench: Bench, issuer: str = CUSTOM) -> str:
    return FIRST.sign(bench.claims(iss=issuer))


async def test_tokens_of_the_issuer_in_the_discovery_document_are_accepted(bench: Bench) -> None:
    bench.project.answers[DISCOVERY] = (200, {"issuer": CUSTOM, "jwks_uri": f"{CUSTOM}/.well-known/jwks.json"})
    await asyncio.gather(*(bench.verifier.verify(_from_elsewhere(bench)) for _ in range(5)))
    assert await bench.verifier.verify(FIRST.sign(bench.claims())), "and those from before it was set up"
    assert await bench.refusal(_from_elsewhere(bench, CUSTOM + "/")) is ErrorCode.UNAUTHORIZED
    assert bench.project.requests(DISCOVERY) == 1


async def test_the_configured_issuer_is_accepted_without_a_request(bench: Bench) -> None:
    verifier = SupabaseTokenVerifier(bench.client, None, CUSTOM)
    assert await verifier.verify(_from_elsewhere(bench))
    assert await verifier.verify(FIRST.sign(bench.claims()))
    assert bench.project.requests(DISCOVERY) == 0


@pytest.mark.parametrize(
    "answer",
    [
        (404, {"message": "no route"}),
        (200, "<html>"),
        (200, {"issuer": None}),
        (200, {"issuer": [CUSTOM]}),
        (200, [CUSTOM]),
        (200, {"issuer": "https://another.example/auth/v1"}),
    ],
    ids=str,
)
async def test_an_unknown_issuer_is_refused_and_logged(bench: Bench, answer: tuple[int, Any]) -> None:
    bench.project.answers[DISCOVERY] = answer
    with structlog.testing.capture_logs() as logged:
        for _ in range(20):
            assert await bench.refusal(_from_elsewhere(bench)) is ErrorCode.UNAUTHORIZED
    assert bench.project.requests(DISCOVERY) == 1
    [told] = [line for line in logged if line["log_level"] == "error"]
    assert (told["event"], told["about"]) == ("issuer.unknown", CUSTOM)
    assert f"{bench.client.url}/auth/v1" in told["known"]
    bench.project.answers[DISCOVERY] = (200, {"issuer": CUSTOM})
    bench.seconds += 31
    assert await bench.verifier.verify(_from_elsewhere(bench))


async def test_a_forged_token_causes_no_discovery_request(bench: Bench) -> None:
    assert await bench.refusal(Key("first").sign(bench.claims(iss=CUSTOM))) is ErrorCode.UNAUTHORIZED
    assert bench.project.requests(DISCOVERY) == 0


async def test_an_issuer_that_cannot_be_discovered_now_is_supabase_unavailable(bench: Bench) -> None:
    bench.project.answers[DISCOVERY] = (503, "away")
    assert await bench.refusal(_from_elsewhere(bench)) is ErrorCode.SUPABASE_UNAVAILABLE
    bench.project.answers[DISCOVERY] = (200, {"issuer": CUSTOM})
    assert await bench.verifier.verify(_from_elsewhere(bench))


# --- Fetching keys ---------------------------------------------------------------------------------------------------


async def test_concurrent_callers_wait_for_one_failed_fetch(bench: Bench) -> None:
    bench.project.answers[JWKS] = (503, "away")
    token = FIRST.sign(bench.claims())
    codes = await asyncio.gather(*(bench.refusal(token) for _ in range(6)))
    assert codes == [ErrorCode.SUPABASE_UNAVAILABLE] * 6
    assert bench.project.requests(JWKS) == 2  # one fetch and its retry
    bench.publish(FIRST)
    assert await bench.verifier.verify(token)


async def test_concurrent_callers_share_one_fetch(bench: Bench) -> None:
    token = FIRST.sign(bench.claims())
    await asyncio.gather(*(bench.verifier.verify(token) for _ in range(20)))
    assert bench.project.requests(JWKS) == 1


async def test_keys_are_fetched_again_after_ten_minutes(bench: Bench) -> None:
    await bench.verifier.verify(FIRST.sign(bench.claims()))
    bench.publish(SECOND)
    bench.seconds += 601
    assert await bench.refusal(FIRST.sign(bench.claims())) is ErrorCode.UNAUTHORIZED
    assert await bench.verifier.verify(SECOND.sign(bench.claims()))
    assert bench.project.requests(JWKS) == 2


async def test_an_unknown_key_id_fetches_new_keys_at_once(bench: Bench) -> None:
    await bench.verifier.verify(FIRST.sign(bench.claims()))
    bench.publish(FIRST, SECOND)
    bench.seconds += 31
    assert await bench.verifier.verify(SECOND.sign(bench.claims()))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, "away"),
        (429, {"message": "too many requests"}),
        (404, {"message": "no route"}),
        (200, "<html>maintenance</html>"),
        (200, {"message": "something else"}),
        (200, {"keys": None}),
        (200, {"keys": ["garbage"]}),
        (200, ["garbage"]),
    ],
)
async def test_an_answer_that_is_not_a_list_of_keys_removes_none(bench: Bench, status: int, body: Any) -> None:
    await bench.verifier.verify(FIRST.sign(bench.claims()))
    bench.project.answers[JWKS] = (status, body)
    bench.seconds += 601
    assert await bench.verifier.verify(FIRST.sign(bench.claims()))
    assert await bench.refusal(SECOND.sign(bench.claims())) is ErrorCode.UNAUTHORIZED
    bench.publish(FIRST, SECOND)
    bench.seconds += 31
    assert await bench.verifier.verify(SECOND.sign(bench.claims()))


async def test_a_broken_key_does_not_affect_others(bench: Bench) -> None:
    broken = [{"kty": "EC", "crv": "P-256", "kid": "broken", "x": x, "y": "AA"} for x in (5, "AA", None)]
    bench.project.answers[JWKS] = (200, {"keys": [*broken, FIRST.published]})
    assert await bench.verifier.verify(FIRST.sign(bench.claims()))


async def test_forged_key_ids_cause_one_fetch_in_thirty_seconds(bench: Bench) -> None:
    for n in range(50):
        assert await bench.refusal(Key(f"forged-{n % 3}").sign(bench.claims())) is ErrorCode.UNAUTHORIZED
    assert bench.project.requests(JWKS) == 1
    bench.seconds += 31
    await bench.refusal(SECOND.sign(bench.claims()))
    assert bench.project.requests(JWKS) == 2


async def test_cached_keys_are_used_during_an_outage_of_their_endpoint(bench: Bench) -> None:
    await bench.verifier.verify(FIRST.sign(bench.claims()))
    bench.project.answers[JWKS] = (503, "away")
    bench.seconds += 3600
    assert await bench.verifier.verify(FIRST.sign(bench.claims()))
    asked = bench.project.requests(JWKS)
    assert await bench.verifier.verify(FIRST.sign(bench.claims()))
    assert bench.project.requests(JWKS) == asked


@pytest.mark.parametrize("answer", [(503, "away"), (200, "<html>"), (200, []), (403, {"message": "no"})], ids=str)
async def test_without_cached_keys_an_outage_is_supabase_unavailable_until_it_ends(
    bench: Bench, answer: tuple[int, object]
) -> None:
    bench.project.answers[JWKS] = answer
    assert await bench.refusal(FIRST.sign(bench.claims())) is ErrorCode.SUPABASE_UNAVAILABLE
    bench.publish(FIRST)
    assert await bench.verifier.verify(FIRST.sign(bench.claims()))


# --- Shared secret ---------------------------------------------------------------------------------------------------


async def test_a_shared_secret_verifies_without_a_request(bench: Bench) -> None:
    token = jwt.encode(bench.claims(), SECRET, "HS256")
    assert (await bench.with_secret(SECRET).verify(token)).user_id == ANN
    assert bench.project.seen == []


async def test_another_secret_is_refused(bench: Bench) -> None:
    token = jwt.encode(bench.claims(), SECRET + "!", "HS256")
    assert await bench.refusal(token, bench.with_secret(SECRET)) is ErrorCode.UNAUTHORIZED


async def test_a_project_that_migrates_to_published_keys_accepts_both(bench: Bench) -> None:
    verifier = bench.with_secret(SECRET)
    assert await verifier.verify(jwt.encode(bench.claims(), SECRET, "HS256", headers={"kid": "legacy"}))
    assert await verifier.verify(FIRST.sign(bench.claims()))


async def test_the_secret_works_while_published_keys_are_unavailable(bench: Bench) -> None:
    bench.project.answers[JWKS] = (503, "away")
    assert await bench.with_secret(SECRET).verify(jwt.encode(bench.claims(), SECRET, "HS256"))


async def test_legacy_service_and_anon_keys_are_not_users_tokens(bench: Bench) -> None:
    for role in ("service_role", "anon"):
        key = jwt.encode({"iss": "supabase", "ref": "x", "role": role, "exp": bench.claims()["exp"]}, SECRET, "HS256")
        assert await bench.refusal(key, bench.with_secret(SECRET)) is ErrorCode.UNAUTHORIZED


# --- Neither: asking -------------------------------------------------------------------------------------------------


@pytest.fixture
def asking(bench: Bench) -> Bench:
    """A project with a shared secret that we do not know."""
    bench.publish()
    bench.project.answers[USER] = (200, {"id": ANN, "email": "ann@example.com"})
    return bench


def unknown(bench: Bench, **changes: Any) -> str:
    return jwt.encode(bench.claims(**changes), SECRET, "HS256")


async def test_without_any_key_supabase_is_asked_and_its_answer_cached_for_half_a_minute(asking: Bench) -> None:
    token = unknown(asking)
    for _ in range(3):
        assert (await asking.verifier.verify(token)).user_id == ANN
    assert asking.project.requests(USER) == 1
    assert asking.project.seen[-1].headers["Authorization"] == f"Bearer {token}"
    asking.seconds += 31
    await asking.verifier.verify(token)
    assert asking.project.requests(USER) == 2


async def test_supabase_is_not_asked_about_a_ticket(asking: Bench) -> None:
    assert await asking.refusal(ticket()) is ErrorCode.UNAUTHORIZED
    assert asking.project.requests(USER) == 0


async def test_a_token_that_supabase_refuses_is_refused(asking: Bench) -> None:
    asking.project.answers[USER] = (403, {"error_code": "bad_jwt", "msg": "invalid JWT"})
    assert await asking.refusal(unknown(asking)) is ErrorCode.UNAUTHORIZED
    assert await asking.refusal(unknown(asking, exp=1)) is ErrorCode.TOKEN_EXPIRED


@pytest.mark.parametrize(
    "changes", [{"aud": "other"}, {"aud": None}, {"role": "service_role"}, {"sub": None}, {"exp": None}], ids=str
)
async def test_a_token_without_a_user_is_refused_although_supabase_accepts_it(
    asking: Bench, changes: dict[str, Any]
) -> None:
    assert await asking.refusal(unknown(asking, **changes)) is ErrorCode.UNAUTHORIZED


async def test_the_answer_must_be_about_the_tokens_user(asking: Bench) -> None:
    asking.project.answers[USER] = (200, {"id": "somebody else"})
    assert await asking.refusal(unknown(asking)) is ErrorCode.UNAUTHORIZED


async def test_an_outage_while_supabase_must_be_asked_is_supabase_unavailable(asking: Bench) -> None:
    await asking.verifier.verify(unknown(asking))
    asking.project.answers[USER] = (503, "away")
    assert await asking.refusal(unknown(asking, email="other@example.com")) is ErrorCode.SUPABASE_UNAVAILABLE


@pytest.mark.parametrize(
    ("status", "body"),
    [(429, {"error_code": "over_request_rate_limit"}), (500, {}), (502, "bad gateway"), (200, "<html>"), (200, {})],
)
async def test_an_answer_that_is_not_about_the_token_is_supabase_unavailable(
    asking: Bench, status: int, body: object
) -> None:
    asking.project.answers[USER] = (status, body)
    assert await asking.refusal(unknown(asking)) is ErrorCode.SUPABASE_UNAVAILABLE


async def test_a_refused_key_of_ours_is_supabase_unavailable(asking: Bench) -> None:
    asking.project.answers[USER] = (401, {"message": "Invalid API key"})
    assert await asking.refusal(unknown(asking)) is ErrorCode.SUPABASE_UNAVAILABLE
