"""Users' identities: tokens, their verification, and sign-in."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class Principal:
    """A user whose access token was verified. `token` is that token, for reads under row level security.

    `session_id`: the token's sign-in, if it names one. `ticket_id`: the ticket that was presented instead of a token.
    """

    user_id: str
    email: str
    token: SecretStr
    expires_at: datetime
    session_id: str | None = None
    ticket_id: str | None = None


@dataclass(frozen=True, slots=True)
class TokenPair:
    """The tokens of a sign-in. `expires_in` in seconds."""

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

    `address` is the client's IP address, which the provider may use for rate limits instead of ours.
    """

    async def sign_up(
        self, email: str, password: SecretStr, name: str | None, *, address: str | None = None
    ) -> TokenPair | None:
        """Create the user. None: the project requires a confirmation by e-mail (or the address exists already)."""
        ...

    async def sign_in(self, email: str, password: SecretStr, *, address: str | None = None) -> TokenPair: ...

    async def refresh(self, refresh_token: SecretStr, *, address: str | None = None) -> TokenPair: ...

    async def sign_out(self, principal: Principal, scope: Literal["local", "others", "global"]) -> None: ...
