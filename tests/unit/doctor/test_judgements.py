"""The doctor's judgements: each problem has a message and a remedy."""

from decimal import Decimal

import jwt
import pytest
from letta_patches import PATCHES

from server.config.validators import key_kind
from server.doctor.configuration import judge_secret
from server.doctor.letta import SPEED_PATCHES, judge_speed, judge_stop
from server.doctor.litellm import judge_log, judge_model, judge_price, judge_release
from server.doctor.redis import judge_version
from server.doctor.supabase import judge_anon_key, judge_confirmation, judge_issuer, judge_tokens
from server.ports import Finding, Level, ModelPrice, SpendLog

GPT_4 = ModelPrice(Decimal("0.00003"), Decimal("0.00006"), Decimal("0.00003"))
FREE = ModelPrice(Decimal(0), Decimal(0), Decimal(0))
OWN, OTHER = "https://x.supabase.co/auth/v1", "https://auth.example.com/auth/v1"
STRONG = "Jq3xV9tLw2ZkB7mNcR5yHdGf8sPa4eTu"


def legacy(role: str) -> str:
    return jwt.encode({"role": role, "iss": "supabase"}, "a secret that is long enough for HS256")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("sb_publishable_abc", "publishable"),
        ("sb_secret_abc", "secret"),
        (legacy("anon"), "anon"),
        (legacy("service_role"), "service_role"),
        (legacy("authenticated"), "unknown"),
        ("nonsense", "unknown"),
    ],
)
def test_the_kind_of_a_key_is_recognized_by_its_form(key: str, kind: str) -> None:
    assert key_kind(key) == kind


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (judge_secret(STRONG, strict=True), "ok"),
        (judge_secret("short", strict=True), "fail"),
        (judge_secret("short", strict=False), "warn"),
        (judge_secret("a" * 64, strict=True), "fail"),
        (judge_model("gpt-4", is_demo=False, production=True), "ok"),
        (judge_model("gpt-4", is_demo=True, production=False), "ok"),
        (judge_model("gpt-4", is_demo=True, production=True), "fail"),
        (judge_price("gpt-4", GPT_4), "ok"),
        (judge_price("gpt-4", None), "warn"),
        (judge_price("gpt-4", FREE), "warn"),
        (judge_log(SpendLog((), 0.4, 1.3)), "ok"),
        (judge_log(SpendLog((), -7.0, 1.3)), "warn"),
        (judge_stop({"stop": None}), "ok"),
        (judge_stop({"stop": "this is Letta 0.16.9, it knows 0.16.8"}), "warn"),
        (judge_stop({}), "warn"),
        (judge_speed(dict.fromkeys(SPEED_PATCHES)), "ok"),
        (judge_speed(dict.fromkeys(SPEED_PATCHES) | {"signatures": "LETTA_PATCH_SIGNATURES turns it off"}), "warn"),
        (judge_speed({"stop": None}), "warn"),
        (judge_speed({}), "warn"),
        (judge_anon_key("publishable", accepted=True), "ok"),
        (judge_anon_key("anon", accepted=True), "ok"),
        (judge_anon_key("anon", accepted=False), "fail"),
        (judge_anon_key("secret", accepted=True), "fail"),
        (judge_anon_key("service_role", accepted=True), "fail"),
        (judge_tokens(frozenset({"ES256"}), has_secret=False), "ok"),
        (judge_tokens(frozenset(), has_secret=True), "warn"),
        (judge_tokens(frozenset(), has_secret=False), "warn"),
        (judge_issuer(OWN, own=OWN, configured=None), "ok"),
        (judge_issuer(OTHER, own=OWN, configured=None), "ok"),
        (judge_issuer(OTHER, own=OWN, configured=OTHER), "ok"),
        (judge_issuer(None, own=OWN, configured=None), "ok"),
        (judge_issuer(None, own=OWN, configured=OTHER), "ok"),
        (judge_issuer(OTHER, own=OWN, configured=OWN), "warn"),
        (judge_issuer(OWN, own=OWN, configured=OTHER), "warn"),
        (judge_confirmation(confirms=True, production=True, has_redirect=True), "ok"),
        (judge_confirmation(confirms=True, production=True, has_redirect=False), "warn"),
        (judge_confirmation(confirms=False, production=True, has_redirect=False), "warn"),
        (judge_confirmation(confirms=False, production=False, has_redirect=False), "ok"),
    ],
)
def test_each_judgement_has_its_level_and_a_remedy_unless_ok(finding: Finding, level: Level) -> None:
    assert finding.level == level
    assert bool(finding.remedy) == (level != "ok")


def test_a_weak_secret_is_not_printed() -> None:
    assert "hunter2" not in str(judge_secret("hunter2", strict=True))


def test_prices_are_shown_per_thousand_tokens() -> None:
    assert judge_price("gpt-4", GPT_4).message == "gpt-4 costs $0.03 in and $0.06 out per 1,000 tokens"


@pytest.mark.parametrize(
    ("release", "level"),
    [
        *(("1.106.2", "ok"), ("1.106.0rc1", "ok"), ("1.200.0", "ok"), ("2.0.0", "ok")),
        *(("1.105.9", "fail"), ("0.999.1", "fail"), ("", "fail"), ("main", "fail"), (None, "fail")),
    ],
)
def test_litellm_is_recent_enough_for_its_spend_log(release: str | None, level: str) -> None:
    assert judge_release(release).level == level


@pytest.mark.parametrize(("version", "level"), [("6.2.14", "ok"), ("8.0.1", "ok"), ("6.0.20", "fail"), ("?", "fail")])
def test_redis_is_recent_enough_for_streams_and_scripts(version: str, level: str) -> None:
    assert judge_version(version).level == level


def test_the_doctor_knows_every_patch_of_letta() -> None:
    names = {patch.__name__.rpartition(".")[2] for patch in PATCHES}
    assert names == {"stop", *SPEED_PATCHES}
