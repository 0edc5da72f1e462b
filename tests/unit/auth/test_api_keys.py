"""API keys: what they look like, what is stored of them, and whom they let in."""

import hashlib
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from server.auth.api_keys import ApiKeys, is_api_key
from server.ports import ApiKey, Principal, Scope
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience.rate_limiter import RateLimiter
from tests.fakes.credentials import FakeCredentials
from tests.fakes.database import MemoryDatabase, utc_now

READ_AND_CHAT: frozenset[Scope] = frozenset({"read", "chat"})
READ: frozenset[Scope] = frozenset({"read"})
READ_AND_ACCOUNT: frozenset[Scope] = frozenset({"read", "account"})

HOME = "192.0.2.1"


class Desk:
    """API keys on a database in memory, and a signed-in user."""

    def __init__(self, per_minute: int = 0, guesses: int = 0) -> None:
        self.seconds = 0.0
        self.passed = timedelta()
        self.database = MemoryDatabase(clock=lambda: utc_now() + self.passed)
        self.store = FakeCredentials(self.database)
        limiter = RateLimiter({"key_requests": per_minute, "key_guesses": guesses}, clock=lambda: self.seconds)
        self.keys = ApiKeys(self.store, limiter, clock=lambda: self.seconds)
        user_id = self.database.sign_up("ann@example.com")
        self.ann = Principal(user_id, "ann@example.com", None, utc_now() + timedelta(hours=1))

    async def make(
        self, expires_in: timedelta | None = None, scopes: frozenset[Scope] = READ_AND_CHAT
    ) -> tuple[ApiKey, str]:
        expires_at = None if expires_in is None else self.database.clock() + expires_in
        key, text = await self.keys.create(self.ann, "script", scopes, expires_at)
        return key, text.get_secret_value()


def changed(text: str) -> str:
    """The key with another last digit."""
    return text[:-1] + ("0" if text[-1] != "0" else "1")


async def test_a_key_authenticates_its_user_with_its_scopes_and_without_a_token() -> None:
    desk = Desk()
    key, text = await desk.make()

    principal = await desk.keys.verify(text, HOME)

    assert (principal.user_id, principal.email) == (desk.ann.user_id, "ann@example.com")
    assert (principal.key_id, principal.scopes, principal.access_token) == (key.id, READ_AND_CHAT, None)
    assert principal.session_id is None
    assert is_api_key(text)
    with pytest.raises(PlatformError, match="forbidden"):
        principal.token()


async def test_only_the_prefix_and_a_hash_of_a_key_are_stored_and_only_the_prefix_is_logged() -> None:
    desk = Desk()
    with capture_logs() as logs:
        key, text = await desk.make()
        await desk.keys.verify(text, HOME)
        with pytest.raises(PlatformError):
            await desk.keys.verify(changed(text), HOME)

    [stored] = desk.database.api_keys.values()
    assert stored.secret_hash == hashlib.sha256(text.encode()).hexdigest()
    assert text.startswith(f"{key.prefix}_")
    secret = text.removeprefix(f"{key.prefix}_")
    assert len(secret) == 64
    assert secret not in repr(desk.database)
    assert secret[:-1] not in repr(logs)
    assert [(entry["event"], entry["prefix"]) for entry in logs] == [
        ("api_key.created", key.prefix),
        ("api_key.refused", key.prefix),
    ]


async def test_a_changed_revoked_or_malformed_key_is_refused_with_the_same_words() -> None:
    desk = Desk()
    (key, text), (_, other) = await desk.make(), await desk.make()
    forged = [
        changed(text),
        f"{key.prefix}_{other.rpartition('_')[2]}",
        text.upper(),
        f"{text}0",
        key.prefix,
        f"{key.prefix}_",
        "chat_",
        f"chat_{'0' * 12}_{'0' * 64}",
        f"{text}\n",
        "chat_" + "9" * 100_000,
    ]
    said = set()
    for attempt in (*forged, text):
        if attempt is text:
            await desk.store.revoke_key(desk.ann.user_id, key.id)
        with pytest.raises(PlatformError, match="unauthorized") as refused:
            await desk.keys.verify(attempt, HOME)
        said.add(refused.value.message)
    assert len(said) == 1
    assert await desk.keys.verify(other, HOME)


async def test_a_key_expires() -> None:
    desk = Desk()
    _, text = await desk.make(timedelta(days=1))
    assert (await desk.keys.verify(text, HOME)).expires_at - utc_now() < timedelta(days=1)
    desk.passed = timedelta(days=1, seconds=1)
    with pytest.raises(PlatformError, match="unauthorized"):
        await desk.keys.verify(text, HOME)


async def test_each_key_has_its_own_rate() -> None:
    desk = Desk(per_minute=3)
    (_, busy), (_, other) = await desk.make(), await desk.make()
    for _ in range(3):
        await desk.keys.verify(busy, HOME)
    with pytest.raises(PlatformError, match="rate_limited") as refused:
        await desk.keys.verify(busy, HOME)
    assert refused.value.retry_after_seconds == 20
    assert await desk.keys.verify(other, HOME)
    for _ in range(5):
        with pytest.raises(PlatformError, match="unauthorized"):
            await desk.keys.verify(changed(other), HOME)
    assert await desk.keys.verify(other, HOME)
    desk.seconds += 20
    assert await desk.keys.verify(busy, HOME)


async def test_the_last_use_is_stored_once_a_minute_and_a_failure_of_that_refuses_nobody() -> None:
    desk, stored = Desk(), []

    async def before(operation: str) -> None:
        if operation == "record_key_use":
            stored.append(operation)
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    _, text = await desk.make()
    desk.database.before = before
    for _ in range(3):
        assert await desk.keys.verify(text, HOME)
    desk.seconds += 61
    assert await desk.keys.verify(text, HOME)
    assert len(stored) == 2


async def test_a_key_creates_only_keys_that_do_no_more_and_live_no_longer() -> None:
    desk = Desk()
    _, text = await desk.make(timedelta(days=2), READ_AND_ACCOUNT)
    principal = await desk.keys.verify(text, HOME)
    soon, late = utc_now() + timedelta(days=1), utc_now() + timedelta(days=3)
    for scopes, expires_at in ((READ_AND_CHAT, soon), (READ, late), (READ, None)):
        with pytest.raises(PlatformError, match="forbidden"):
            await desk.keys.create(principal, "more", scopes, expires_at)
    key, _ = await desk.keys.create(principal, "less", READ, soon)
    assert key.scopes == READ


async def test_guesses_of_a_network_cost_no_query_beyond_their_rate_and_stop_no_key_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(guesses=2)
    _, text = await desk.make()
    _, unused = await desk.make()
    for _ in range(3):
        await desk.keys.verify(text, HOME)  # valid keys are no guesses
    for _ in range(2):
        with pytest.raises(PlatformError, match="unauthorized"):
            await desk.keys.verify(changed(text), HOME)

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "find_key", None)  # it is not called
        for attempt in (changed(text), unused):
            with pytest.raises(PlatformError) as refused:
                await desk.keys.verify(attempt, HOME)
            assert refused.value.code is ErrorCode.RATE_LIMITED
            assert refused.value.members["rate_limit"] == "key_guesses"
    assert await desk.keys.verify(text, HOME)
    assert await desk.keys.verify(unused, "192.0.2.2")
    desk.seconds = 60.0
    assert await desk.keys.verify(unused, HOME)


async def test_a_revoked_key_is_a_guess_and_an_unavailable_database_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unavailable(prefix: str) -> None:
        raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    desk = Desk(guesses=1)
    _, text = await desk.make()
    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "find_key", unavailable)
        for _ in range(3):
            with pytest.raises(PlatformError, match="supabase_unavailable"):
                await desk.keys.verify(text, HOME)
    await desk.keys.verify(text, HOME)
    desk.database.api_keys.clear()
    for code in ("unauthorized", "unauthorized", "rate_limited"):  # the first is known to have been valid
        with pytest.raises(PlatformError, match=code):
            await desk.keys.verify(text, HOME)
