"""Rate limit of password attempts per account, independent of the number of addresses; and the record of sign-ins.

All addresses that never signed in to an account share one limit. An address that did has its own limit, so the owner
can sign in while others try passwords. For that, addresses are stored as hashes. The device of a sign-in is stored in
clear, for its user to recognize it, until the sign-in ends.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

import structlog
from cachetools import TTLCache
from pydantic import SecretStr

from server.aio import TaskSet
from server.ip_addresses import network_of
from server.ports import SignInDevice
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience.rate_limiter import RateLimiter

log = structlog.get_logger(__name__)

_KEY_CONTEXT: Final = b"ai-chat-platform/sign-ins/v1"
KNOWN_SECONDS: Final = 30.0
"""The TTL of an account's known addresses in the cache."""
CACHED: Final = 10_000
RECORD_SECONDS: Final = 1.0
"""How long a sign-in waits until it is recorded."""


class SignInStore(Protocol):
    """Stores the devices and addresses that signed in to an account; `AccountStore` is one."""

    async def known_addresses(self, email: str) -> list[str]: ...

    async def record_sign_in(self, user_id: str, device: SignInDevice, address_hash: str | None) -> None: ...


class SignInLimits:
    """The limits `sign_ins`, `registrations`, `mails` and `codes`. `clock` in seconds. Close with `aclose`."""

    def __init__(
        self,
        store: SignInStore,
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
        self._queries = TaskSet("sign-ins", ignored=(PlatformError,))
        self._known: TTLCache[str, asyncio.Task[list[str]]] = TTLCache(CACHED, KNOWN_SECONDS, timer=clock)

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

    async def signed_in(self, user_id: str, email: str, device: SignInDevice) -> None:
        """Store the device of this sign-in, and give its address a limit of its own from now on.

        Waits RECORD_SECONDS at most. If the database is unavailable, the next sign-in or refresh stores them."""
        hashed = None
        if self._is_on and device.address is not None:
            hashed = self._hashes(account_name(email), network_of(device.address))[0]
        if device.session_id is None and hashed is None:
            return
        recording = self._queries.create(self._record(user_id, email, device, hashed))
        await asyncio.wait((recording,), timeout=RECORD_SECONDS)

    async def _record(self, user_id: str, email: str, device: SignInDevice, hashed: str | None) -> None:
        try:
            await self._store.record_sign_in(user_id, device, hashed)
        except PlatformError as error:
            log.warning("auth.sign_in_not_recorded", user_id=user_id, code=error.code)
            return
        self._known.pop(account_name(email), None)

    async def aclose(self) -> None:
        """Stop using the database."""
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
