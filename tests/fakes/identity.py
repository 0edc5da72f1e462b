"""Supabase Auth in memory: users with passwords, access tokens that expire, refresh tokens that are spent once."""

import base64
import json
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from pydantic import SecretStr

from server.ports import LinkToken, MailCode, MailProof, MailType, Principal, SignInMethod, TokenPair
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.database import MemoryDatabase

LIFETIME = timedelta(hours=1)


@dataclass(slots=True)
class FakeMail:
    """A mail that Auth sent. `new_email`: the address that it confirms."""

    to: str
    type: MailType
    user_id: str
    new_email: str | None
    code: str
    token_hash: str
    is_used: bool = False

    def matches(self, proof: MailProof) -> bool:
        match proof:
            case MailCode(email, code, type_):
                return (email, code.get_secret_value()) == (self.to, self.code) and type_ in (self.type, "email")
            case LinkToken(token_hash, type_):
                return (token_hash.get_secret_value(), type_) == (self.token_hash, self.type)
            case _:
                return False


@dataclass(slots=True)
class FakeIdentity:
    """Implements `server.ports.IdentityProvider` and `server.ports.TokenVerifier` on the database's users.

    `confirms`: new users must confirm their address before they may sign in. `down`: the service does not answer.
    `captcha`: the token without which it refuses what a captcha protects.
    """

    database: MemoryDatabase
    confirms: bool = False
    down: bool = False
    captcha: str | None = None
    mails: list[FakeMail] = field(default_factory=list)
    unconfirmed: set[str] = field(default_factory=set)
    passwords: dict[str, SecretStr] = field(default_factory=dict)
    """By user id."""
    access: dict[str, Principal] = field(default_factory=dict)
    """By access token."""
    refreshes: dict[str, str] = field(default_factory=dict)
    """User id by refresh token."""
    verified: int = 0

    # IdentityProvider

    async def sign_up(
        self,
        email: str,
        password: SecretStr,
        name: str | None,
        *,
        address: str | None = None,
        captcha_token: str | None = None,
    ) -> TokenPair | None:
        self._must_solve(captcha_token)
        if len(password.get_secret_value()) < 8:
            raise PlatformError(ErrorCode.WEAK_PASSWORD)
        if email in self.database.users.values():
            if self.confirms:
                return None
            raise PlatformError(ErrorCode.INVALID_REQUEST, "This e-mail address is registered already.")
        user_id = self.database.sign_up(email)
        self.passwords[user_id] = password
        if not self.confirms:
            return self.issue(user_id)
        self.unconfirmed.add(user_id)
        self._mail(email, "signup", user_id)
        return None

    async def sign_in(
        self, email: str, password: SecretStr, *, address: str | None = None, captcha_token: str | None = None
    ) -> TokenPair:
        self._must_solve(captcha_token)
        for user_id, known in self.database.users.items():
            if known == email and self.passwords.get(user_id) == password:
                if user_id in self.unconfirmed:
                    raise PlatformError(ErrorCode.UNAUTHORIZED, "Confirm your e-mail address first.")
                return self.issue(user_id)
        raise PlatformError(ErrorCode.UNAUTHORIZED, "Wrong e-mail address or password.")

    async def refresh(self, refresh_token: SecretStr, *, address: str | None = None) -> TokenPair:
        self._must_answer()
        user_id = self.refreshes.pop(refresh_token.get_secret_value(), None)
        if user_id is None:
            raise PlatformError(ErrorCode.UNAUTHORIZED, "This refresh token is not valid or was used already.")
        return self.issue(user_id, method="token_refresh")

    async def sign_out(self, principal: Principal, scope: Literal["local", "others", "global"]) -> None:
        principal.token()
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

    async def verify_otp(
        self, proof: MailProof, *, address: str | None = None, captcha_token: str | None = None
    ) -> TokenPair | None:
        self._must_solve(captcha_token)
        mail = next((mail for mail in self.mails if not mail.is_used and mail.matches(proof)), None)
        if mail is None:
            raise PlatformError(ErrorCode.OTP_EXPIRED)
        mail.is_used = True
        self.unconfirmed.discard(mail.user_id)
        if mail.new_email:
            self.database.users[mail.user_id] = mail.new_email
        return self.issue(mail.user_id)

    async def recover(self, email: str, *, address: str | None = None, captcha_token: str | None = None) -> None:
        self._must_solve(captcha_token)
        if user_id := self._user_of(email):
            self._mail(email, "recovery", user_id)

    async def resend(
        self,
        email: str,
        kind: Literal["signup", "email_change"],
        *,
        address: str | None = None,
        captcha_token: str | None = None,
    ) -> None:
        self._must_solve(captcha_token)
        sent = next((mail for mail in self.mails if mail.to == email and mail.type == kind and not mail.is_used), None)
        if sent is not None:
            self._mail(email, kind, sent.user_id, sent.new_email)

    async def set_password(self, access_token: SecretStr, password: SecretStr, current: SecretStr | None) -> None:
        self._must_answer()
        if len(password.get_secret_value()) < 8:
            raise PlatformError(ErrorCode.WEAK_PASSWORD)
        user_id = self.access[access_token.get_secret_value()].user_id
        if current is not None:
            assert self.passwords[user_id] == current
        self.passwords[user_id] = password

    async def set_email(self, access_token: SecretStr, email: str) -> bool:
        self._must_answer()
        user_id = self.access[access_token.get_secret_value()].user_id
        if self._user_of(email) is None:
            self._mail(email, "email_change", user_id, email)
        return False

    # TokenVerifier

    async def verify(self, token: str) -> Principal:
        self.verified += 1
        if token not in self.access:
            raise PlatformError(ErrorCode.UNAUTHORIZED)
        principal = self.access[token]
        if principal.expires_at <= self.database.clock():
            raise PlatformError(ErrorCode.TOKEN_EXPIRED)
        return replace(principal, email=self.database.users.get(principal.user_id, ""))

    # For tests

    def issue(self, user_id: str, lifetime: timedelta = LIFETIME, method: str = "password") -> TokenPair:
        """A fresh pair of tokens, as any way of signing in gives them."""
        expires_at = self.database.clock() + lifetime
        access, refresh = _jwt(user_id, expires_at), f"refresh-{uuid.uuid4()}"
        session_id = str(uuid.uuid4())
        self.database.sign_ins[session_id] = user_id
        amr = (SignInMethod(method, self.database.clock()),)
        email = self.database.users[user_id]
        self.access[access] = Principal(user_id, email, SecretStr(access), expires_at, session_id, amr)
        self.refreshes[refresh] = user_id
        return TokenPair(
            SecretStr(access),
            SecretStr(refresh),
            int(lifetime.total_seconds()),
            expires_at,
            user_id,
            email,
            session_id=session_id,
        )

    def _user_of(self, email: str) -> str | None:
        return next((user_id for user_id, known in self.database.users.items() if known == email), None)

    def _mail(self, to: str, type_: MailType, user_id: str, new_email: str | None = None) -> None:
        code, token_hash = f"{100_000 + len(self.mails)}", uuid.uuid4().hex
        self.mails.append(FakeMail(to, type_, user_id, new_email, code, token_hash))

    def _must_answer(self) -> None:
        if self.down:
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE, retry_after=5.0)

    def _must_solve(self, captcha_token: str | None) -> None:
        self._must_answer()
        if self.captcha != captcha_token and self.captcha is not None:
            raise PlatformError(ErrorCode.CAPTCHA_FAILED)


def _jwt(user_id: str, expires_at: datetime) -> str:
    """An access token that clients can read as they read Supabase's; its signature is a name, not a proof."""
    claims = json.dumps({"sub": user_id, "exp": int(expires_at.timestamp())}).encode()
    return f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.{uuid.uuid4()}"
