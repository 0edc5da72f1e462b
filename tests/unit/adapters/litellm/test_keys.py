"""Users' keys with answers of LiteLLM 1.106: registered, expiring, unblocked; other keys do not change."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from server.adapters.litellm.billing import LiteLLMBilling
from server.keyring import fingerprint
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.unit.adapters.litellm.scripted import ScriptedLiteLLM, error

KEY = SecretStr("sk-a-value-of-our-own")
NAME = fingerprint(KEY)
ALIAS = f"user ann {NAME[:12]}"
ALIAS_EXISTS = (400, error(f"Key with alias '{ALIAS}' already exists.", "key_alias", "bad_request_error"))
NO_SUCH_KEY = (404, error("Key not found.", "key", "not_found_error"))
LATER = "2026-11-26T07:34:44.519000+00:00"


def row(token: str, alias: str | None, **fields: Any) -> dict[str, Any]:
    return {"token": token, "key_alias": alias, "expires": None, "blocked": None, **fields}


def user(*keys: dict[str, Any]) -> tuple[int, object]:
    return 200, {"user_id": "ann", "user_info": {"user_id": "ann"}, "keys": list(keys)}


def asked(service: ScriptedLiteLLM) -> list[tuple[str, Any]]:
    """The writes to LiteLLM, in order."""
    return [(one.path, one.body) for one in service.asked if one.method == "POST"]


async def test_the_key_is_ours_named_after_the_user_and_itself(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/user/info", user())
    service.says("/key/generate", (200, {}))
    await billing.ensure_key("ann", KEY)
    assert asked(service) == [("/key/generate", {"key": KEY.get_secret_value(), "user_id": "ann", "key_alias": ALIAS})]


async def test_registering_the_same_key_again_changes_nothing(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/user/info", user(row(NAME, ALIAS)))
    await billing.ensure_key("ann", KEY)
    assert asked(service) == []


async def test_a_key_of_an_earlier_version_is_ours_too(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/user/info", user(row(NAME, "user ann")))
    await billing.ensure_key("ann", KEY)
    assert asked(service) == []


async def test_a_key_that_was_registered_meanwhile_is_not_an_error(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/user/info", user(), user(row(NAME, ALIAS)))
    service.says("/key/generate", ALIAS_EXISTS)
    await billing.ensure_key("ann", KEY)
    assert len(asked(service)) == 1


async def test_an_older_key_expires_after_ten_minutes(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/user/info", user(row("old", "user ann"), row("older", "user ann 0123456789ab")))
    service.says("/key/generate", (200, {}))
    service.says("/key/update", (200, {}))
    await billing.ensure_key("ann", KEY)
    assert asked(service)[1:] == [
        ("/key/update", {"key": "old", "duration": "10m"}),
        ("/key/update", {"key": "older", "duration": "10m"}),
    ]


async def test_the_expiry_of_an_older_key_is_not_extended(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/user/info", user(row(NAME, ALIAS), row("old", "user ann", expires=LATER)))
    await billing.ensure_key("ann", KEY)
    assert asked(service) == []


async def test_keys_made_by_hand_and_those_of_others_do_not_change(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    others = (row("by-hand", "ann's laptop"), row("nameless", None), row("annie", "user annie 0123456789ab"))
    service.says("/user/info", user(row(NAME, ALIAS), *others))
    await billing.ensure_key("ann", KEY)
    await billing.block_other_keys("ann", KEY)
    assert asked(service) == []


async def test_a_blocked_key_is_unblocked(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/user/info", user(row(NAME, ALIAS, blocked=True)))
    service.says("/key/unblock", (200, {}))
    await billing.ensure_key("ann", KEY)
    assert asked(service) == [("/key/unblock", {"key": NAME})]


async def test_the_expiry_of_the_key_in_use_is_removed(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/user/info", user(row(NAME, ALIAS, expires=LATER)))
    service.says("/key/update", (200, {}))
    await billing.ensure_key("ann", KEY)
    assert asked(service) == [("/key/update", {"key": NAME, "duration": None})]


async def test_an_older_key_that_was_deleted_meanwhile_is_not_an_error(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/user/info", user(row(NAME, ALIAS), row("old", "user ann")))
    service.says("/key/update", NO_SUCH_KEY)
    await billing.ensure_key("ann", KEY)


async def test_a_leaked_key_is_blocked_with_or_without_an_expiry(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    olds = (row("old", "user ann", expires=LATER), row("older", "user ann 0123456789ab", blocked=True))
    service.says("/user/info", user(row(NAME, ALIAS), *olds))
    service.says("/key/block", (200, {}))
    await billing.block_other_keys("ann", KEY)
    assert asked(service) == [("/key/block", {"key": "old"})]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ((200, {"info": {"status": "active", "expires": LATER}}), "active"),
        ((200, {"info": {"status": "revoked", "blocked": True}}), "blocked"),
        ((200, {"info": {"status": "expired", "expires": LATER}}), "expired"),
        ((200, {"info": {"status": "deleted", "blocked": False}}), "missing"),
        (NO_SUCH_KEY, "missing"),
    ],
)
async def test_the_state_of_a_key_is_read_by_its_hash(
    service: ScriptedLiteLLM, billing: LiteLLMBilling, answer: tuple[int, object], state: str
) -> None:
    service.says("/key/info", answer)
    assert await billing.key_state(NAME) == state
    assert service.asked[0].query == {"key": NAME}


@pytest.mark.parametrize("info", [{"blocked": False}, {"status": "odd"}, {"status": None}])
async def test_an_unreadable_key_state_is_litellm_unavailable(
    service: ScriptedLiteLLM, billing: LiteLLMBilling, info: dict[str, object]
) -> None:
    service.says("/key/info", (200, {"info": info}))
    with pytest.raises(PlatformError) as raised:
        await billing.key_state(NAME)
    assert raised.value.code is ErrorCode.LITELLM_UNAVAILABLE


@pytest.mark.parametrize("path", ["/user/info", "/key/generate", "/key/update"])
async def test_a_refusal_is_a_permanent_error(service: ScriptedLiteLLM, billing: LiteLLMBilling, path: str) -> None:
    service.says("/user/info", user(row("old", "user ann")))
    service.says("/key/generate", (200, {}))
    service.says("/key/update", (200, {}))
    service.says(path, (400, error("Invalid key format.")))
    with pytest.raises(PlatformError) as raised:
        await billing.ensure_key("ann", KEY)
    assert (raised.value.code, raised.value.retryable) == (ErrorCode.INTERNAL_ERROR, False)


async def test_a_refused_key_state_is_not_missing(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says("/key/info", (400, error("bad")))
    with pytest.raises(PlatformError):
        await billing.key_state(NAME)


async def test_an_expiry_by_litellms_configuration_is_logged_and_removed(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/user/info", user())
    service.says("/key/generate", (200, {"key": KEY.get_secret_value(), "expires": LATER}))
    service.says("/key/update", (200, {}))
    with capture_logs() as events:
        await billing.ensure_key("ann", KEY)
    assert asked(service)[1:] == [("/key/update", {"key": NAME, "duration": None})]
    (event,) = events
    assert (event["event"], event["user_id"], event["expires"]) == ("key.expiry_unasked", "ann", LATER)
    assert KEY.get_secret_value() not in str(event)


async def test_an_expiry_is_removed_also_if_the_answer_of_the_registration_was_lost(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    service.says("/user/info", user(), user(row(NAME, ALIAS, expires=LATER)))
    service.says("/key/generate", ALIAS_EXISTS)
    service.says("/key/update", (200, {}))
    await billing.ensure_key("ann", KEY)
    assert asked(service)[1:] == [("/key/update", {"key": NAME, "duration": None})]


async def test_keys_that_will_expire_are_counted_except_replaced_ones(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    now = datetime.now(UTC)
    in_a_month, in_minutes = (now + timedelta(days=30)).isoformat(), (now + timedelta(minutes=9)).isoformat()
    keys = [
        row("a", "user ann 0123", expires=in_a_month),
        row("b", "user bob 0123", expires=in_minutes),
        row("c", "user cee 0123", expires=now.isoformat()),
        row("d", "user dee 0123"),
        row("e", "made by hand", expires=in_a_month),
        row("f", None, expires=in_a_month),
    ]
    service.says("/key/list", (200, {"keys": [*keys, "a hash alone"]}))
    assert await billing.expiring_keys() == 1
