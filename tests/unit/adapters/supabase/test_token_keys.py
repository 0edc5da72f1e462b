"""What verifies an access token: its issuer, and keys that are fetched, rotated and cached, or shared, or asked for."""

import asyncio
from typing import Any

import jwt
import pytest
import structlog

from server.adapters.supabase.issuers import DISCOVERY
from server.adapters.supabase.tokens import SupabaseTokenVerifier
from server.protocol.codes import ErrorCode
from tests.unit.adapters.supabase.token_bench import ANN, FIRST, JWKS, SECOND, SECRET, USER, Bench, Key, ticket

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
