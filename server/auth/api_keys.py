"""API keys: a script presents one wherever a person presents an access token.

A key is `chat_<12 hex digits>_<64 hex digits>`. The part before the second underscore is its prefix, by which it is
listed, logged and found; the rest is secret. Only a SHA-256 of the whole key is stored: unlike a password it has 256
random bits, so it cannot be guessed from the hash. A key is looked up for each request, so that a revoked one is
refused everywhere at once.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog
from cachetools import TTLCache
from pydantic import SecretStr

from server.ports import ApiKey, CredentialStore, NewApiKey, Principal, Scope, StoredApiKey
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience.rate_limiter import RateLimiter

log = structlog.get_logger(__name__)

BEGINNING: Final = "chat_"
MOST: Final = 10
"""Keys per user."""
_FORM: Final = re.compile(r"(chat_[0-9a-f]{12})_[0-9a-f]{64}", re.ASCII)
_NEVER: Final = datetime(9999, 12, 31, tzinfo=UTC)
"""The expiry of the principal of a key that does not expire."""
_RECENT_SECONDS: Final = 60.0
"""How long a valid key counts as recently used: its use is not stored again, and it is not taken for a guess."""


def is_api_key(text: str) -> bool:
    """Whether the text is meant as an API key, valid or not. An access token never begins like one."""
    return text.startswith(BEGINNING)


class ApiKeys:
    """Creates and verifies keys, each with a rate of its own, `key_requests`; wrong ones have the rate `key_guesses`
    of their network. `clock` in seconds."""

    def __init__(
        self,
        store: CredentialStore,
        limiter: RateLimiter | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._limiter = limiter or RateLimiter({})
        self._recent: TTLCache[str, None] = TTLCache(10_000, _RECENT_SECONDS, timer=clock)

    async def create(
        self, principal: Principal, name: str, scopes: frozenset[Scope], expires_at: datetime | None
    ) -> tuple[ApiKey, SecretStr]:
        """A new key of the user, and its text, which is not stored.

        A key may create only keys that do not exceed it, in scopes or in time: else it would outlive its own end.
        Raises PlatformError(too_many_keys | forbidden | account_blocked).
        """
        if principal.key_id is not None and (not scopes <= principal.scopes or _outlives(expires_at, principal)):
            message = "A key that an API key creates can neither do more nor live longer than that one."
            raise PlatformError(ErrorCode.FORBIDDEN, message)
        prefix = f"{BEGINNING}{secrets.token_hex(6)}"
        text = f"{prefix}_{secrets.token_hex(32)}"
        new = NewApiKey(principal.user_id, name, prefix, _hash(text), scopes, expires_at)
        key = await self._store.create_key(new, MOST)
        log.info("api_key.created", prefix=prefix, scopes=sorted(scopes))
        return key, SecretStr(text)

    async def verify(self, text: str, network: str) -> Principal:
        """The key's user, with the key's scopes, for a request from `network`. Raises PlatformError(unauthorized |
        rate_limited | supabase_unavailable)."""
        form = _FORM.fullmatch(text)
        if form is None:
            raise _refusal()
        stored = await self._find(form[1], _hash(text), network)
        # Counted after the comparison: a caller who knows only the prefix must not use up the rate of the key.
        await self._limiter.take("key_requests", stored.key.id)
        return Principal(
            user_id=stored.user_id,
            email=stored.email,
            access_token=None,
            expires_at=stored.key.expires_at or _NEVER,
            is_anonymous=stored.is_anonymous,
            key_id=stored.key.id,
            scopes=stored.key.scopes,
        )

    async def _find(self, prefix: str, secret_hash: str, network: str) -> StoredApiKey:
        """The key with this prefix and hash. One that was not in use within the last minute counts as a guess until it
        is found: guesses cost no query once their network has used up its rate, and do not stop keys in use."""
        is_new = secret_hash not in self._recent
        if is_new:
            await self._limiter.take("key_guesses", network)
        is_wrong = False
        try:
            stored = await self._store.find_key(prefix)
            if stored is None or not hmac.compare_digest(secret_hash, stored.secret_hash):
                is_wrong = True
                self._recent.pop(secret_hash, None)
                log.warning("api_key.refused", prefix=prefix, address=network)
                raise _refusal()
        finally:
            if is_new and not is_wrong:
                await self._limiter.put_back("key_guesses", network)
        if is_new:
            self._recent[secret_hash] = None
            await self._record_use(stored.key.id)
        return stored

    async def _record_use(self, key_id: str) -> None:
        """Store the time. A key works also if that fails."""
        try:
            await self._store.record_key_use(key_id)
        except PlatformError as error:
            log.info("api_key.use_not_stored", code=error.code)


def _outlives(expires_at: datetime | None, principal: Principal) -> bool:
    return (expires_at or _NEVER) > principal.expires_at


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _refusal() -> PlatformError:
    return PlatformError(ErrorCode.UNAUTHORIZED, "The API key is not valid, has expired or was revoked.")
