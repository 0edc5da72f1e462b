"""How often the password of one account may be tried, from however many addresses.

All addresses that never signed in to an account share its tries, so that many of them try no more often than one. An
address that did sign in to it counts for itself: its owner gets in while others try. Addresses are kept as hashes.
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
from server.resilience.token_buckets import Buckets

log = structlog.get_logger(__name__)

_KEY_CONTEXT: Final = b"ai-chat-platform/sign-ins/v1"
KNOWN_SECONDS: Final = 30.0
"""How long what the database knows of an account's addresses is taken for all it knows."""
CACHED: Final = 10_000


class AddressBook(Protocol):
    """Which addresses signed in to an account; `AccountStore` is one."""

    async def known_addresses(self, email: str) -> list[str]: ...

    async def note_address(self, user_id: str, address_hash: str) -> None: ...


class SignInLimits:
    """Limits tries per account; `per_minute` 0 turns them off. `clock` in seconds. Close with `aclose`."""

    def __init__(
        self,
        book: AddressBook,
        per_minute: int,
        secret_keys: Sequence[SecretStr],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`secret_keys`: the one that hashes are made with, then those that older hashes were made with."""
        self._book = book
        self._buckets = Buckets(per_minute, clock=clock)
        self._is_on = per_minute > 0
        self._keys = [hmac.digest(key.get_secret_value().encode(), _KEY_CONTEXT, hashlib.sha256) for key in secret_keys]
        self._questions = TaskSet("known addresses", ignored=(PlatformError,))
        self._known: TTLCache[str, asyncio.Task[list[str]]] = TTLCache(CACHED, KNOWN_SECONDS, timer=clock)
        self._noted: LRUCache[str, None] = LRUCache(CACHED)

    @asynccontextmanager
    async def sign_in(self, email: str, address: str) -> AsyncIterator[None]:
        """Around a try of a password. Only a wrong one counts, in the end; one under way counts as wrong.

        Raises PlatformError(rate_limited) with retry_after, at most a minute; or supabase_unavailable.
        """
        account = account_name(email)
        key = await self._take(account, network_of(address))
        try:
            yield
        except PlatformError as error:
            if error.code is not ErrorCode.UNAUTHORIZED:
                self._buckets.give_back(key)
            raise
        except BaseException:
            self._buckets.give_back(key)
            raise
        self._buckets.give_back(key)

    def sign_up(self, email: str) -> None:
        """Count a try to register this address, which may send it a mail. Raises PlatformError(rate_limited)."""
        self._buckets.take(f"sign-up/{account_name(email)}")

    async def signed_in(self, user_id: str, email: str, address: str) -> None:
        """From now on this address counts for itself. A database that is unavailable is asked at the next one."""
        hashed = self._hashes(account_name(email), network_of(address))[0]
        if not self._is_on or hashed in self._noted:
            return
        try:
            await self._book.note_address(user_id, hashed)
        except PlatformError as error:
            log.warning("auth.address_not_noted", user_id=user_id, code=error.code)
            return
        self._known.pop(account_name(email), None)
        self._noted[hashed] = None

    async def aclose(self) -> None:
        """Ask the database no more."""
        await self._questions.aclose()

    async def _take(self, account: str, network: str) -> str:
        """Take a try from all strangers' bucket, or else from the address's own, if it has one."""
        shared = f"sign-in/{account}"
        try:
            self._buckets.take(shared)
            return shared
        except PlatformError:
            hashes = self._hashes(account, network)
            known = await self._addresses(account)
            if not any(hashed in known for hashed in hashes):
                log.warning("auth.account_rate_limited", address=network)
                raise
        own = f"{shared}/{hashes[0]}"
        self._buckets.take(own)
        return own

    async def _addresses(self, account: str) -> list[str]:
        """The hashes of an account's addresses: one question to the database for all who ask meanwhile."""
        asked = self._known.get(account)
        if asked is None or (asked.done() and asked.exception()):
            asked = self._known[account] = self._questions.create(self._book.known_addresses(account))
        return await self._questions.result(asked)

    def _hashes(self, account: str, network: str) -> list[str]:
        text = f"{account}\0{network}".encode()
        return [hmac.new(key, text, hashlib.sha256).hexdigest() for key in self._keys]


def account_name(email: str) -> str:
    """An e-mail address as Supabase Auth compares it: each letter by its simple lower case, as Go does."""
    return "".join(letter.lower()[0] for letter in email.strip())
