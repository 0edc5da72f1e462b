"""API keys and sign-ins of users, and which of them have ended. The database is the truth: Auth's own sessions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from server.ports.identity import Credential, Scope


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as its user sees it: never the key itself. `prefix` is its public part; it never expires if
    `expires_at` is None."""

    id: str
    name: str
    prefix: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key to store. `secret_hash` is the SHA-256 of the whole key, in hex."""

    user_id: str
    name: str
    prefix: str
    secret_hash: str
    scopes: frozenset[Scope]
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredApiKey:
    """A valid key, with the hash of its secret and what the platform needs to know of its user."""

    key: ApiKey
    user_id: str
    email: str
    secret_hash: str
    is_anonymous: bool = False


@dataclass(frozen=True, slots=True)
class SignInDevice:
    """Who signed in: the id of the sign-in, if the provider names it, the client's User-Agent (at most 512 characters)
    and its IP address."""

    session_id: str | None
    user_agent: str | None
    address: str | None


@dataclass(frozen=True, slots=True)
class SignIn:
    """One sign-in of a user, on one device. `last_seen_at`: when its access token was last refreshed. `user_agent` and
    `address`: of its last sign-in or refresh here, else as the provider has them."""

    id: str
    created_at: datetime
    last_seen_at: datetime
    user_agent: str | None
    address: str | None


class CredentialStore(Protocol):
    """API keys, and the sign-ins at the identity provider (service role)."""

    async def create_key(self, new: NewApiKey, most: int) -> ApiKey:
        """Store a key. Expired keys of the user are deleted.

        Raises PlatformError(too_many_keys) if the user has `most` keys; account_blocked, unauthorized.
        """
        ...

    async def revoke_key(self, user_id: str, key_id: str) -> bool:
        """Delete a key. Returns False if the user has none with this id."""
        ...

    async def find_key(self, prefix: str) -> StoredApiKey | None:
        """The key with this prefix, if it may be used: neither expired, nor of a user who was banned or deleted."""
        ...

    async def record_key_use(self, key_id: str) -> None:
        """Set the time of the key's last use to now."""
        ...

    async def ended(self, credentials: Sequence[Credential]) -> set[Credential]:
        """Those of these that have ended: signed out, revoked, expired, or of a user who was banned or deleted."""
        ...

    async def sign_ins(self, user_id: str) -> list[SignIn]:
        """The user's valid sign-ins, the newest first."""
        ...

    async def end_sign_in(self, user_id: str, session_id: str) -> bool:
        """End a sign-in, so that it cannot be refreshed. Returns False if the user has none with this id."""
        ...
