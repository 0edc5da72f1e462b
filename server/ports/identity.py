"""Who is asking: tokens, their verification, and sign-in."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class Principal:
    """A user whose access token was verified. `token` is that token, for reads that row level security judges.

    `session_id`: the sign-in it belongs to, where the token says so. `ticket_id`: the ticket that was shown instead.
    """

    user_id: str
    email: str
    token: SecretStr
    expires_at: datetime
    session_id: str | None = None
    ticket_id: str | None = None


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a sign-in gives a client. `expires_in` in seconds."""

    access_token: SecretStr
    refresh_token: SecretStr
    expires_in: int
    expires_at: datetime
    user_id: str
    email: str


class TokenVerifier(Protocol):
    async def verify(self, token: str) -> Principal:
        """Check signature, algorithm, audience, issuer and expiry.

        Raises PlatformError(unauthorized | token_expired | supabase_unavailable).
        """
        ...


class IdentityProvider(Protocol):
    """Sign-up and sign-in. Raises PlatformError(unauthorized | weak_password | invalid_request | rate_limited).

    `address` is the client's IP address, by which the provider may limit instead of by ours.
    """

    async def sign_up(
        self, email: str, password: SecretStr, name: str | None, *, address: str | None = None
    ) -> TokenPair | None:
        """Create the user. None: the project wants the e-mail confirmed first (or the address already exists there)."""
        ...

    async def sign_in(self, email: str, password: SecretStr, *, address: str | None = None) -> TokenPair: ...

    async def refresh(self, refresh_token: SecretStr, *, address: str | None = None) -> TokenPair: ...

    async def sign_out(self, principal: Principal, scope: Literal["local", "others", "global"]) -> None: ...
