"""TokenVerifier: access tokens of the Supabase project, checked here where its keys are known, else asked about there.

Which algorithm a token is checked with follows from the key that is configured or published, never from the token.
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
"""How long published keys are trusted (Supabase documents ten minutes for its own edge cache)."""
REFETCH_SECONDS: Final = 30.0
"""The least time between two fetches, so that forged key ids cannot make us hammer the project."""
ANSWER_SECONDS: Final = 30.0
"""How long Supabase's answer about a token is cached, where it has to be asked."""
CACHED_ANSWERS: Final = 2_000
FETCH_SECONDS: Final = 3.0
REFUSALS: Final = frozenset({400, 401, 403, 404})
"""What Supabase Auth says of a token: malformed, expired or forged, its session or user gone. Else it says nothing."""
NOT_YET: Final = "The access token is not valid yet: the clocks of two services differ. Try again shortly."
LONGEST_PAUSE: Final = 60.0
"""In seconds: when to come back with a token that begins later still."""


class PublishedKeys:
    """The project's JWKS, fetched without blocking and kept through an outage of the endpoint."""

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
        """Key id → key, at most ten minutes old unless the endpoint is away. Empty for projects with a shared secret.

        Raises PlatformError(supabase_unavailable) if they could never be fetched.
        """
        stale = self._clock() - self._fetched_at > KEYS_SECONDS
        if self._keys is None or (stale and not self._lock.locked()):
            await self._fetch()
        assert self._keys is not None
        return self._keys

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key of that id; an unknown one may be new, so it is worth one throttled fetch."""
        keys = await self.all()
        if key_id not in keys:
            await self._fetch()
            keys = await self.all()
        return keys.get(key_id)

    async def _fetch(self) -> None:
        outages = self._outages
        async with self._lock:
            if self._keys is None and self._failure is not None and self._outages > outages:
                # Of the fetch that was waited for: one outage is waited for once.
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
        """What the endpoint says now. Where there never was a key, there need be no endpoint."""
        response = await self._client.fetch("/auth/v1/.well-known/jwks.json", deadline=FETCH_SECONDS)
        if response.status_code == httpx.codes.NOT_FOUND and not self._keys:
            return {}
        return _parse(response)


def _parse(response: httpx.Response) -> dict[str, jwt.PyJWK]:
    """The keys that can verify: symmetric, unknown, broken and nameless ones are left out.

    Raises PlatformError(supabase_unavailable) for what is no list of keys."""
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
            return await self._judged(token, claims_of(token, key.key, key.algorithm_name))
        if await self._keys.all():
            raise jwt.InvalidKeyError("no published key has this id")
        return await self._asked(token)

    async def _verify_with_secret(self, token: str, key_id: str, secret: str) -> Principal:
        """A project that has a secret may be on its way to published keys: either may have signed.

        The secret is tried first, so that an unreachable JWKS endpoint cannot lock its users out.
        """
        try:
            claims = claims_of(token, secret, "HS256")
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
            key = await self._keys.find(key_id)
            if key is None:
                raise
            claims = claims_of(token, key.key, key.algorithm_name)
        return await self._judged(token, claims)

    async def _judged(self, token: str, claims: dict[str, Any]) -> Principal:
        """Whose token it is that the project has signed."""
        principal = principal_of(token, claims)
        issuer = claims["iss"]
        if not isinstance(issuer, str) or not await self._issuers.includes(issuer):
            raise jwt.InvalidIssuerError("issued by another issuer")
        self._refuse_early(claims)
        return principal

    def _refuse_early(self, claims: dict[str, Any]) -> None:
        """Judge a token that is not valid yet as reads with it are judged: by Supabase's clock, and as temporary.

        A refreshed one would be newer still.
        """
        early = seconds_early(claims, self._client.time())
        if early > 0:
            self._client.faults.report("supabase.token_of_the_future", "iat or nbf", seconds=round(early))
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE, NOT_YET, retry_after=min(early + 1, LONGEST_PAUSE))

    async def _asked(self, token: str) -> Principal:
        """Ask Supabase Auth, the only one who can tell if the signature fits. Cached for half a minute."""
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
    """Whose token it is: nobody's if Supabase Auth refuses it.

    Raises PlatformError(supabase_unavailable) for every other answer: being limited (429), say, signs nobody out."""
    if response.status_code in REFUSALS:
        return None
    try:
        return str(response.raise_for_status().json()["id"])
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as cause:
        raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE) from cause
