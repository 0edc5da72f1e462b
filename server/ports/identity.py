"""Users' identities: tokens, what they allow, their verification, and sign-in."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol

from pydantic import SecretStr

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

Scope = Literal["read", "chat", "account"]
"""What an API key may be used for. `read`: the user's data and events. `chat`: messages, and the agent's memory.
`account`: changes of the account."""

Access = Literal["public", "read", "chat", "account", "admin"]
"""Who may use an endpoint: anybody, a user whose credential has this scope, or an operator."""

ALL_SCOPES: Final[frozenset[Scope]] = frozenset({"read", "chat", "account"})


@dataclass(frozen=True, slots=True)
class Credential:
    """What a user presented: a sign-in (by its access token or a ticket) or an API key, by their ids. Both None: a
    token that names no sign-in."""

    user_id: str
    session_id: str | None = None
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class SignInMethod:
    """One way in which a user proved their identity (`password`, `otp`, `totp`, …), and when."""

    method: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a user with a verified access token, a ticket or an API key.

    `access_token` is for reads under row level security; None for tickets and API keys. Of the token's claims:
    `session_id`, its sign-in, if it names one; `amr`, the ways in which the user signed in, the latest first; `aal`,
    the assurance level that follows from them; `is_anonymous`, for a user without address or password. `ticket_id` and
    `key_id`: the ticket or API key that was presented instead. `scopes`: what the credential may be used for; a
    person's token has all.
    """

    user_id: str
    email: str
    access_token: SecretStr | None
    expires_at: datetime
    session_id: str | None = None
    amr: tuple[SignInMethod, ...] = ()
    aal: str = "aal1"
    is_anonymous: bool = False
    ticket_id: str | None = None
    key_id: str | None = None
    scopes: frozenset[Scope] = ALL_SCOPES

    @property
    def credential(self) -> Credential:
        return Credential(self.user_id, self.session_id, self.key_id)

    def token(self) -> SecretStr:
        """The access token, for what only a signed-in user may do. Raises PlatformError(forbidden) without one."""
        if self.access_token is None:
            raise PlatformError(ErrorCode.FORBIDDEN, "An API key cannot do this: sign in.")
        return self.access_token


@dataclass(frozen=True, slots=True)
class TokenPair:
    """The tokens of a sign-in, and its id if the access token names it. `expires_in` in seconds."""

    access_token: SecretStr
    refresh_token: SecretStr
    expires_in: int
    expires_at: datetime
    user_id: str
    email: str
    is_anonymous: bool = False
    session_id: str | None = None


class TokenVerifier(Protocol):
    async def verify(self, token: str) -> Principal:
        """Check signature, algorithm, audience, issuer and expiry.

        Raises PlatformError(unauthorized | token_expired | supabase_unavailable).
        """
        ...


MailType = Literal["signup", "recovery", "email", "email_change", "magiclink", "invite"]
"""What a mail of the provider is for. `email`: its code signs in, whatever the mail was for."""


@dataclass(frozen=True, slots=True)
class MailCode:
    """A code that the user typed from a mail to this address."""

    email: str
    code: SecretStr
    type: MailType


@dataclass(frozen=True, slots=True)
class LinkToken:
    """The `token_hash` in a mail's link."""

    token_hash: SecretStr
    type: MailType


@dataclass(frozen=True, slots=True)
class PkceCode:
    """The `?code=` to which a link leads, with the verifier of the client that began the flow."""

    code: SecretStr
    verifier: SecretStr


MailProof = MailCode | LinkToken | PkceCode


class IdentityProvider(Protocol):
    """Sign-up, sign-in, and proof of an e-mail address.

    Raises PlatformError(unauthorized | weak_password | invalid_request | rate_limited | captcha_failed | otp_expired |
    registration_closed | mfa_required | reauthentication_required | account_blocked | supabase_unavailable).

    `address` is the client's IP address, which the provider may use for rate limits instead of ours. `captcha_token`
    is what the captcha of the client's page returned, for projects that require one.
    """

    async def sign_up(
        self,
        email: str,
        password: SecretStr,
        name: str | None,
        *,
        address: str | None = None,
        captcha_token: str | None = None,
    ) -> TokenPair | None:
        """Create the user. None: the project requires a confirmation by e-mail (or the address exists already)."""
        ...

    async def sign_in(
        self, email: str, password: SecretStr, *, address: str | None = None, captcha_token: str | None = None
    ) -> TokenPair: ...

    async def refresh(self, refresh_token: SecretStr, *, address: str | None = None) -> TokenPair: ...

    async def sign_out(self, principal: Principal, scope: Literal["local", "others", "global"]) -> None:
        """End this sign-in, the user's other ones, or all; not an error if they have ended already.

        Raises PlatformError(forbidden) for an API key, which is no sign-in.
        """
        ...

    async def verify_otp(
        self, proof: MailProof, *, address: str | None = None, captcha_token: str | None = None
    ) -> TokenPair | None:
        """Complete what the mail was for, and sign in. None: a change of the address also needs the other mail."""
        ...

    async def recover(self, email: str, *, address: str | None = None, captcha_token: str | None = None) -> None:
        """Send a mail by which a new password can be set, if the account exists. Raises nothing that depends on
        that."""
        ...

    async def resend(
        self,
        email: str,
        kind: Literal["signup", "email_change"],
        *,
        address: str | None = None,
        captcha_token: str | None = None,
    ) -> None:
        """Send the mail again, if one is due. Raises nothing that depends on that."""
        ...

    async def set_password(self, access_token: SecretStr, password: SecretStr, current: SecretStr | None) -> None:
        """Set the user's password. `current` is the one before, if the user gave it."""
        ...

    async def set_email(self, access_token: SecretStr, email: str) -> bool:
        """Ask for another e-mail address. True if it was changed at once, False if mails must be confirmed first (also
        if the address is another user's)."""
        ...
