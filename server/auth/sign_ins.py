"""Rate limit of password attempts per account, independent of the number of addresses.

All addresses that never signed in to an account share one limit. An address that did has its own limit, so the owner
can sign in while others try passwords. Addresses are stored as hashes.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

import structlog
from cachetools import LRUCache, TTLCache
from pydantic import SecretStr

from server.aio import TaskSet
from server.ip_addresses import network_of
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience.rate_limiter import RateLimiter

log = structlog.get_logger(__name__)

_KEY_CONTEXT: Final = b"ai-chat-platform/sign-ins/v1"
KNOWN_SECONDS: Final = 30.0
"""The TTL of an account's known addresses in the cache."""
CACHED: Final = 10_000


class KnownAddresses(Protocol):
    """Stores the addresses that signed in to an account; `AccountStore` is one."""

    async def known_addresses(self, email: str) -> list[str]: ...

    async def record_address(self, user_id: str, address_hash: str) -> None: ...


class SignInLimits:
    """The limits `sign_ins`, `registrations`, `mails` and `codes`. `clock` in seconds. Close with `aclose`."""

    def __init__(
        self,
        store: KnownAddresses,
        limiter: RateLimiter,
        secret_keys: Sequence[SecretStr],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`secret_keys`: the key of new hashes, then the keys of older ones."""
        self._store = store
        self._limiter = limiter
        self._is_on = limiter.per_minute("sign_ins") > 0
        self._keys = [hmac.digest(key.get_secret_value().encode(), _KEY_CONTEXT, hashlib.sha256) for key in secret_keys]
        self._queries = TaskSet("known addresses", ignored=(PlatformError,))
        self._known: TTLCache[str, asyncio.Task[list[str]]] = TTLCache(CACHED, KNOWN_SECONDS, timer=clock)
        self._stored: LRUCache[str, None] = LRUCache(CACHED)

    @asynccontextmanager
    async def sign_in(self, email: str, address: str) -> AsyncIterator[None]:
        """Enter around a password attempt. A wrong password counts, and also an attempt that has not finished.

        Raises PlatformError(rate_limited) with retry_after, at most a minute; or supabase_unavailable.
        """
        account = account_name(email)
        key = await self._take(account, network_of(address))
        try:
            yield
        except PlatformError as error:
            if error.code is not ErrorCode.UNAUTHORIZED:
                await self._limiter.put_back("sign_ins", key)
            raise
        except BaseException:
            await self._limiter.put_back("sign_ins", key)
            raise
        await self._limiter.put_back("sign_ins", key)

    async def sign_up(self, email: str) -> None:
        """Count an attempt to register this e-mail address, which may send a mail. Raises
        PlatformError(rate_limited)."""
        await self._limiter.take("registrations", account_name(email))

    async def mail(self, email: str) -> None:
        """Count a request that may send a mail to this address. Raises PlatformError(rate_limited)."""
        await self._limiter.take("mails", account_name(email))

    async def code(self, email: str) -> None:
        """Count an attempt to verify a code that was sent to this address. Raises PlatformError(rate_limited)."""
        await self._limiter.take("codes", account_name(email))

    async def signed_in(self, user_id: str, email: str, address: str) -> None:
        """Give this address its own limit from now on. If the database is unavailable, the next sign-in retries."""
        hashed = self._hashes(account_name(email), network_of(address))[0]
        if not self._is_on or hashed in self._stored:
            return
        try:
            await self._store.record_address(user_id, hashed)
        except PlatformError as error:
            log.warning("auth.address_not_stored", user_id=user_id, code=error.code)
            return
        self._known.pop(account_name(email), None)
        self._stored[hashed] = None

    async def aclose(self) -> None:
        """Stop reading the database."""
        await self._queries.aclose()

    async def _take(self, account: str, network: str) -> str:
        """Count an attempt in the shared bucket, or if that is empty, in the bucket of a known address."""
        try:
            await self._limiter.take("sign_ins", account)
            return account
        except PlatformError:
            hashes = self._hashes(account, network)
            known = await self._addresses(account)
            if not any(hashed in known for hashed in hashes):
                log.warning("auth.account_rate_limited", address=network)
                raise
        own = f"{account}/{hashes[0]}"
        await self._limiter.take("sign_ins", own)
        return own

    async def _addresses(self, account: str) -> list[str]:
        """The hashes of an account's addresses. Concurrent calls share one query."""
        asked = self._known.get(account)
        if asked is None or (asked.done() and asked.exception()):
            asked = self._known[account] = self._queries.create(self._store.known_addresses(account))
        return await self._queries.result(asked)

    def _hashes(self, account: str, network: str) -> list[str]:
        text = f"{account}\0{network}".encode()
        return [hmac.new(key, text, hashlib.sha256).hexdigest() for key in self._keys]


def account_name(email: str) -> str:
    """An e-mail address as Supabase Auth compares it: with each letter's simple lower case, as in Go."""
    return "".join(letter.lower()[0] for letter in email.strip())
