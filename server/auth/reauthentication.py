"""Whether a user has just proved who they are: required before a change that a stolen access token must not make."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from pydantic import SecretStr

from server.auth.sign_ins import SignInLimits
from server.ports import AccountStore, IdentityProvider, Principal, TokenVerifier
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

RECENT: Final = timedelta(minutes=10)
NO_PROOF: Final = frozenset({"token_refresh", "anonymous"})
"""Methods in a token's `amr` that prove nothing new about the user."""


class Reauthentication:
    """Requires the current password, or a sign-in of the last ten minutes."""

    def __init__(
        self,
        identity: IdentityProvider,
        verifier: TokenVerifier,
        accounts: AccountStore,
        limits: SignInLimits,
        now: Callable[[], datetime],
    ) -> None:
        self._identity = identity
        self._verifier = verifier
        self._accounts = accounts
        self._limits = limits
        self._now = now

    async def require(
        self,
        principal: Principal,
        password: SecretStr | None,
        *,
        address: str | None = None,
        captcha_token: str | None = None,
    ) -> None:
        """Check the password if there is one, else the age of the sign-in. API keys are refused.

        Raises PlatformError(reauthentication_required | forbidden | rate_limited | captcha_failed |
        supabase_unavailable).
        """
        if principal.access_token is None:
            raise PlatformError(ErrorCode.FORBIDDEN, "This needs the access token of a sign-in.")
        if password is not None:
            await self._check(principal, password, address, captcha_token)
        elif not signed_in_recently(principal, self._now()):
            raise PlatformError(ErrorCode.REAUTHENTICATION_REQUIRED)

    async def _check(
        self, principal: Principal, password: SecretStr, address: str | None, captcha_token: str | None
    ) -> None:
        """Sign in with the password, and out again at once: Supabase Auth has no other check of a password."""
        account = await self._accounts.get(principal.user_id)
        email = principal.email if account is None else account.email
        try:
            async with self._limits.sign_in(email, address or "unknown"):
                tokens = await self._identity.sign_in(email, password, address=address, captcha_token=captcha_token)
        except PlatformError as error:
            if error.code is not ErrorCode.UNAUTHORIZED:
                raise
            message = "The current password is wrong."
            raise PlatformError(ErrorCode.REAUTHENTICATION_REQUIRED, message) from error
        proved = await self._verifier.verify(tokens.access_token.get_secret_value())
        await self._identity.sign_out(proved, "local")
        if tokens.user_id != principal.user_id:
            raise PlatformError(ErrorCode.REAUTHENTICATION_REQUIRED)


def signed_in_recently(principal: Principal, now: datetime) -> bool:
    """Whether the token's `amr` has a sign-in of the last ten minutes. A refresh of the token is none."""
    return any(proof.method not in NO_PROOF and now - proof.at <= RECENT for proof in principal.amr)
