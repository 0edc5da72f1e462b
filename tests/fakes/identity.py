"""Supabase Auth in memory: users with passwords, access tokens that expire, refresh tokens that are spent once."""

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pydantic import SecretStr

from server.ports import Principal, TokenPair
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.database import MemoryDatabase

LIFETIME = timedelta(hours=1)


@dataclass(slots=True)
class FakeIdentity:
    """Implements `server.ports.IdentityProvider` and `server.ports.TokenVerifier` on the database's users.

    `confirms`: new users must confirm their address before they may sign in. `down`: the service does not answer.
    """

    database: MemoryDatabase
    confirms: bool = False
    down: bool = False
    passwords: dict[str, SecretStr] = field(default_factory=dict)
    """By user id."""
    access: dict[str, tuple[str, datetime, str]] = field(default_factory=dict)
    """User id, expiry and sign-in by access token."""
    refreshes: dict[str, str] = field(default_factory=dict)
    """User id by refresh token."""
    verified: int = 0

    # IdentityProvider

    async def sign_up(
        self, email: str, password: SecretStr, name: str | None, *, address: str | None = None
    ) -> TokenPair | None:
        self._must_answer()
        if len(password.get_secret_value()) < 8:
            raise PlatformError(ErrorCode.WEAK_PASSWORD)
        if email in self.database.users.values():
            if self.confirms:
                return None
            raise PlatformError(ErrorCode.INVALID_REQUEST, "This e-mail address is registered already.")
        user_id = self.database.sign_up(email)
        self.passwords[user_id] = password
        return None if self.confirms else self.issue(user_id)

    async def sign_in(self, email: str, password: SecretStr, *, address: str | None = None) -> TokenPair:
        self._must_answer()
        for user_id, known in self.database.users.items():
            if known == email and self.passwords.get(user_id) == password:
                return self.issue(user_id)
        raise PlatformError(ErrorCode.UNAUTHORIZED, "Wrong e-mail address or password.")

    async def refresh(self, refresh_token: SecretStr, *, address: str | None = None) -> TokenPair:
        self._must_answer()
        user_id = self.refreshes.pop(refresh_token.get_secret_value(), None)
        if user_id is None:
            raise PlatformError(ErrorCode.UNAUTHORIZED, "This refresh token is not valid or was used already.")
        return self.issue(user_id)

    async def sign_out(self, principal: Principal, scope: Literal["local", "others", "global"]) -> None:
        self._must_answer()
        if scope != "others":
            self.refreshes = {token: owner for token, owner in self.refreshes.items() if owner != principal.user_id}
        ended = [
            key
            for key, owner in self.database.sign_ins.items()
            if owner == principal.user_id and (scope == "global" or (key == principal.session_id) == (scope == "local"))
        ]
        for key in ended:
            del self.database.sign_ins[key]

    # TokenVerifier

    async def verify(self, token: str) -> Principal:
        self.verified += 1
        if token not in self.access:
            raise PlatformError(ErrorCode.UNAUTHORIZED)
        user_id, expires_at, session_id = self.access[token]
        if expires_at <= self.database.clock():
            raise PlatformError(ErrorCode.TOKEN_EXPIRED)
        email = self.database.users.get(user_id, "")
        return Principal(user_id, email, SecretStr(token), expires_at, session_id)

    # For tests

    def issue(self, user_id: str, lifetime: timedelta = LIFETIME) -> TokenPair:
        """A fresh pair of tokens, as any way of signing in gives them."""
        access, refresh = f"access-{uuid.uuid4()}", f"refresh-{uuid.uuid4()}"
        expires_at = self.database.clock() + lifetime
        session_id = str(uuid.uuid4())
        self.database.sign_ins[session_id] = user_id
        self.access[access] = user_id, expires_at, session_id
        self.refreshes[refresh] = user_id
        return TokenPair(
            SecretStr(access),
            SecretStr(refresh),
            int(lifetime.total_seconds()),
            expires_at,
            user_id,
            self.database.users[user_id],
        )

    def _must_answer(self) -> None:
        if self.down:
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE, retry_after=5.0)
