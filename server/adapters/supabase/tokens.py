"""TokenVerifier: verifies access tokens of the Supabase project locally if its keys are known, else by asking Auth.

The configured or published key determines the algorithm, never the token.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any, Final

import httpx
import jwt
import structlog
from cachetools import TTLCache
from pydantic import SecretStr

from server.adapters.supabase.claims import claims_of, key_id_of, principal_of, seconds_early
from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.issuers import Issuers
from server.ports import Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

LARGEST_TOKEN: Final = 16 * 1024
"""In bytes. OAuth claims can make a token a few KiB long."""
PUBLISHED_ALGORITHMS: Final = frozenset({"ES256", "RS256"})
KEYS_SECONDS: Final = 600.0
"""TTL of published keys (Supabase documents ten minutes for its own edge cache)."""
REFETCH_SECONDS: Final = 30.0
"""The minimum time between two fetches, so that forged key ids cannot cause many requests to the project."""
ANSWER_SECONDS: Final = 30.0
"""TTL of Auth's answer about a token."""
CACHED_ANSWERS: Final = 2_000
FETCH_SECONDS: Final = 3.0
REFUSALS: Final = frozenset({400, 401, 403, 404})
"""Statuses of Auth for an invalid token: malformed, expired or forged, or its session or user deleted."""
NOT_YET: Final = "The access token is not valid yet: the clocks of two services differ. Try again shortly."
LONGEST_PAUSE: Final = 60.0
"""Seconds: the maximum `retry_after` for a token that is not valid yet."""


class PublishedKeys:
    """The project's JWKS, fetched without blocking, and cached during an outage of the endpoint."""

    def __init__(self, client: SupabaseClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._lock = asyncio.Lock()
        self._keys: dict[str, jwt.PyJWK] | None = None
        self._fetched_at = 0.0
        self._tried_at = float("-inf")
        self._outages = 0
        self._failure: PlatformError | None = None

    async def all(self) -> dict[str, jwt.PyJWK]:
        """Key id → key, at most ten minutes old unless the endpoint is unavailable. Empty for projects with a secret.

        Raises PlatformError(supabase_unavailable) if they could never be fetched.
        """
        stale = self._clock() - self._fetched_at > KEYS_SECONDS
        if self._keys is None or (stale and not self._lock.locked()):
            await self._fetch()
        assert self._keys is not None
        return self._keys

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key of that id. An unknown id may be new, so it causes a (throttled) fetch."""
        keys = await self.all()
        if key_id not in keys:
            await self._fetch()
            keys = await self.all()
        return keys.get(key_id)

    async def _fetch(self) -> None:
        outages = self._outages
        async with self._lock:
            if self._keys is None and self._failure is not None and self._outages > outages:
                # The fetch that this call waited for has failed: do not wait for another.
                raise PlatformError(self._failure.code, retry_after=self._failure.retry_after) from self._failure
            if self._keys is not None and self._clock() - self._tried_at < REFETCH_SECONDS:
                return
            self._tried_at = self._clock()
            try:
                self._keys, self._failure = await self._published(), None
            except PlatformError as error:
                self._failure, self._outages = error, self._outages + 1
                if self._keys is None:
                    raise
                log.warning("jwks.fetch_failed", keys=len(self._keys))
                return
            self._fetched_at = self._clock()
            log.debug("jwks.fetched", keys=len(self._keys))

    async def _published(self) -> dict[str, jwt.PyJWK]:
        """The keys of the endpoint. A 404 is an empty list, unless keys were published before."""
        response = await self._client.fetch("/auth/v1/.well-known/jwks.json", deadline=FETCH_SECONDS)
        if response.status_code == httpx.codes.NOT_FOUND and not self._keys:
            return {}
        return _parse(response)


def _parse(response: httpx.Response) -> dict[str, jwt.PyJWK]:
    """The usable keys: without symmetric, unknown and broken ones, and those without an id.

    Raises PlatformError(supabase_unavailable) if the response is not a list of keys."""
    try:
        published = response.raise_for_status().json()["keys"]
        entries = [dict(entry) for entry in published]
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as cause:
        raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE, "The project's signing keys cannot be read.") from cause
    keys: dict[str, jwt.PyJWK] = {}
    for entry in entries:
        try:
            key = jwt.PyJWK(entry)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        if key.key_id and key.algorithm_name in PUBLISHED_ALGORITHMS:
            keys[key.key_id] = key
    return keys


class SupabaseTokenVerifier:
    """Implements `server.ports.TokenVerifier` by published key, by SUPABASE_JWT_SECRET, or by asking Supabase Auth."""

    def __init__(
        self,
        client: SupabaseClient,
        secret: SecretStr | None = None,
        issuer: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._secret = None if secret is None else secret.get_secret_value()
        self._keys = PublishedKeys(client, clock)
        self._issuers = Issuers(client, issuer, clock)
        self._known: TTLCache[bytes, None] = TTLCache(CACHED_ANSWERS, ANSWER_SECONDS, timer=clock)

    async def verify(self, token: str) -> Principal:
        if len(token) > LARGEST_TOKEN or not token.isascii():
            raise _invalid()
        try:
            return await self._verify(token)
        except jwt.ExpiredSignatureError as cause:
            raise PlatformError(ErrorCode.TOKEN_EXPIRED) from cause
        except jwt.PyJWTError as cause:
            raise _invalid() from cause

    async def _verify(self, token: str) -> Principal:
        key_id = key_id_of(token)
        if self._secret is not None:
            return await self._verify_with_secret(token, key_id, self._secret)
        key = await self._keys.find(key_id)
        if key is not None:
            return await self._validated(token, claims_of(token, key.key, key.algorithm_name))
        if await self._keys.all():
            raise jwt.InvalidKeyError("no published key has this id")
        return await self._verified_by_auth(token)

    async def _verify_with_secret(self, token: str, key_id: str, secret: str) -> Principal:
        """Verify by the secret or a published key: a project may be migrating from one to the other.

        The secret is tried first, so that an unavailable JWKS endpoint cannot lock users out.
        """
        try:
            claims = claims_of(token, secret, "HS256")
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
            key = await self._keys.find(key_id)
            if key is None:
                raise
            claims = claims_of(token, key.key, key.algorithm_name)
        return await self._validated(token, claims)

    async def _validated(self, token: str, claims: dict[str, Any]) -> Principal:
        """The user of a token whose signature was verified."""
        principal = principal_of(token, claims)
        issuer = claims["iss"]
        if not isinstance(issuer, str) or not await self._issuers.includes(issuer):
            raise jwt.InvalidIssuerError("issued by another issuer")
        self._refuse_early(claims)
        return principal

    def _refuse_early(self, claims: dict[str, Any]) -> None:
        """Refuse a token that is not valid yet by Supabase's clock, as reads with it would be: as temporary, since a
        refreshed token would be valid even later."""
        early = seconds_early(claims, self._client.time())
        if early > 0:
            self._client.faults.report("supabase.token_of_the_future", "iat or nbf", seconds=round(early))
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE, NOT_YET, retry_after=min(early + 1, LONGEST_PAUSE))

    async def _verified_by_auth(self, token: str) -> Principal:
        """Ask Supabase Auth, if no key is known to verify the signature. Cached for half a minute."""
        claims = claims_of(token)
        principal = principal_of(token, claims)
        digest = hashlib.sha256(token.encode()).digest()
        if digest not in self._known:
            response = await self._client.fetch("/auth/v1/user", headers={"Authorization": f"Bearer {token}"})
            if _user_of(response) != principal.user_id:
                raise jwt.InvalidTokenError("Supabase Auth does not know this token")
            self._known[digest] = None
        self._refuse_early(claims)
        return principal


def _invalid() -> PlatformError:
    return PlatformError(ErrorCode.UNAUTHORIZED, "The access token is not valid.")


def _user_of(response: httpx.Response) -> str | None:
    """The user id of the token; None if Supabase Auth refuses it.

    Raises PlatformError(supabase_unavailable) for every other answer: a rate limit (429) must not sign a user out."""
    if response.status_code in REFUSALS:
        return None
    try:
        return str(response.raise_for_status().json()["id"])
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as cause:
        raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE) from cause
