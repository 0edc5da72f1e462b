"""IdentityProvider on Supabase Auth. Each call has its own client, since signing in changes a client's identity."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeVar

import httpx
from pydantic import HttpUrl, SecretStr
from supabase_auth.errors import AuthApiError, AuthError, CustomAuthError
from supabase_auth.types import AuthResponse, Session

from server.adapters.supabase.client import ANON_KEY, SupabaseClient
from server.adapters.supabase.faults import Faults, SupabaseError
from server.ports import Principal, TokenPair
from server.protocol.codes import ErrorCode
from server.protocol.errors import FieldError, PlatformError
from server.resilience import ServiceError, retry_after_in

SECONDS: Final = 10.0
"""The deadline of one call. Auth hashes passwords with bcrypt and may send an e-mail before it answers."""

RATE_LIMIT_SECONDS: Final = 60.0
"""The `retry_after` of a 429 without one."""

EXISTS: Final = frozenset({"user_already_exists", "email_exists"})
SESSION_GONE: Final = frozenset({401, 403, 404})
"""The statuses of /logout for a session that has ended already."""

ADDRESS: Final = (FieldError("/email", "is not an address that can be registered here"),)

MEANINGS: Final[dict[str, tuple[ErrorCode, str]]] = {
    "invalid_credentials": (ErrorCode.UNAUTHORIZED, "The e-mail address or the password is wrong."),
    "email_not_confirmed": (ErrorCode.UNAUTHORIZED, "Confirm your e-mail address first, by the link that was sent."),
    "user_not_found": (ErrorCode.UNAUTHORIZED, "This account no longer exists."),
    "refresh_token_not_found": (ErrorCode.UNAUTHORIZED, "The refresh token is not valid. Sign in again."),
    "refresh_token_already_used": (ErrorCode.UNAUTHORIZED, "The refresh token was used before. Sign in again."),
    "session_not_found": (ErrorCode.UNAUTHORIZED, "The session has ended. Sign in again."),
    "session_expired": (ErrorCode.UNAUTHORIZED, "The session has expired. Sign in again."),
    "bad_jwt": (ErrorCode.UNAUTHORIZED, "The access token is not valid."),
    "user_banned": (ErrorCode.ACCOUNT_BLOCKED, "This account is blocked."),
    "signup_disabled": (ErrorCode.INVALID_REQUEST, "Registration is closed."),
    "email_provider_disabled": (ErrorCode.INVALID_REQUEST, "Registration by e-mail is closed."),
    "email_address_invalid": (ErrorCode.INVALID_REQUEST, "This e-mail address cannot be used."),
    "email_address_not_authorized": (ErrorCode.INVALID_REQUEST, "This e-mail address cannot be used."),
}
"""Auth's error codes (supabase.com/docs/guides/auth/debugging/error-codes) in the protocol's terms."""

T = TypeVar("T")


class SupabaseIdentity:
    """Implements `server.ports.IdentityProvider`. `redirect_url` is the target of the link in confirmation e-mails."""

    def __init__(
        self,
        client: SupabaseClient,
        redirect_url: HttpUrl | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._redirect_url = redirect_url
        self._now = now

    async def sign_up(
        self, email: str, password: SecretStr, name: str | None, *, address: str | None = None
    ) -> TokenPair | None:
        _refuse_nul(email, password.get_secret_value(), name or "")
        options: dict[str, Any] = {"data": {} if name is None else {"name": name}}
        if self._redirect_url is not None:
            options["email_redirect_to"] = str(self._redirect_url)
        credentials = {"email": email, "password": password.get_secret_value(), "options": options}
        try:
            answer = await self._once(lambda: self._sign_up(credentials, address))
        except _AddressExistsError:
            return None
        if answer.session is not None:
            return self._pair(answer.session)
        if answer.user is None:
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)
        return None

    async def _sign_up(self, credentials: Any, address: str | None) -> AuthResponse:
        """Sign up, with one retry: of two concurrent sign-ups of one address, Auth answers one with 500 at first."""
        try:
            return await self._client.visitor(address).sign_up(credentials)
        except AuthApiError as failure:
            if failure.status != httpx.codes.INTERNAL_SERVER_ERROR:
                raise
            return await self._client.visitor(address).sign_up(credentials)

    async def sign_in(self, email: str, password: SecretStr, *, address: str | None = None) -> TokenPair:
        _refuse_nul(email, password.get_secret_value())
        auth = self._client.visitor(address)
        answer = await self._once(
            lambda: auth.sign_in_with_password({"email": email, "password": password.get_secret_value()})
        )
        return self._granted(answer.session)

    async def refresh(self, refresh_token: SecretStr, *, address: str | None = None) -> TokenPair:
        auth = self._client.visitor(address)
        try:
            answer = await self._once(lambda: auth.refresh_session(refresh_token.get_secret_value()))
        except PlatformError as refusal:
            if refusal.code is not ErrorCode.INVALID_REQUEST:
                raise
            raise PlatformError(ErrorCode.UNAUTHORIZED, "The refresh token is not valid. Sign in again.") from refusal
        return self._granted(answer.session)

    async def sign_out(self, principal: Principal, scope: Literal["local", "others", "global"]) -> None:
        """End sessions; not an error if they have ended already. The access token stays valid until it expires."""
        assert principal.access_token is not None
        admin, token = self._client.visitor().admin, principal.access_token.get_secret_value()

        async def log_out() -> None:
            try:
                await admin.sign_out(token, scope)
            except AuthApiError as answer:
                refused = self._client.faults.refuses_our_key(answer.status, answer.message, ANON_KEY)
                if refused is not None or answer.status not in SESSION_GONE:
                    raise

        await self._once(log_out)

    async def _once(self, call: Callable[[], Awaitable[T]]) -> T:
        """One call without retries, since a sign-up sends an e-mail, and a refresh token can be used only once."""

        async def translated() -> T:
            try:
                with self._client.faults.translated(ANON_KEY):
                    return await call()
            except AuthError as cause:
                raise _translated(cause, self._client.faults) from None
            except (ValueError, TypeError, LookupError, AttributeError) as cause:  # the SDK could not read the answer
                raise ServiceError("Supabase Auth answered with something unreadable") from cause

        return await self._client.guard.once(translated, deadline=SECONDS)

    def _granted(self, session: Session | None) -> TokenPair:
        if session is None:
            raise SupabaseError("Supabase Auth signed a user in without a session")
        return self._pair(session)

    def _pair(self, session: Session) -> TokenPair:
        if session.expires_at is None:
            expires_at = self._now() + timedelta(seconds=session.expires_in)
        else:
            expires_at = datetime.fromtimestamp(session.expires_at, UTC)
        return TokenPair(
            access_token=SecretStr(session.access_token),
            refresh_token=SecretStr(session.refresh_token),
            expires_in=session.expires_in,
            expires_at=expires_at,
            user_id=session.user.id,
            email=session.user.email or "",
        )


def _refuse_nul(*texts: str) -> None:
    """Refuse a NUL character, which PostgreSQL cannot store: Auth answers 500, which would look like an outage."""
    if any("\0" in text for text in texts):
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The text contains a NUL character.")


class _AddressExistsError(Exception):
    """The address is registered already (answered by a project that does not confirm addresses)."""


def _translated(error: AuthError, faults: Faults) -> Exception:
    """The error that corresponds to an SDK error: the user's fault, or the service's, including our key."""
    status = error.status if isinstance(error, AuthApiError | CustomAuthError) else 0
    code = str(error.code or "")
    if code in EXISTS:
        return _AddressExistsError()
    answer = getattr(error.__cause__, "response", None)
    retry_after = None if answer is None else retry_after_in(answer.headers)
    if status == 0 or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return ServiceError(
            f"Supabase Auth is unavailable ({code or status})", retry_after=retry_after, answered=status == 500
        )
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return PlatformError(ErrorCode.RATE_LIMITED, retry_after=retry_after or RATE_LIMIT_SECONDS)
    return faults.refuses_our_key(status, error.message, ANON_KEY) or _refusal(code, status, error.message, faults)


def _refusal(code: str, status: int, sentence: str, faults: Faults) -> Exception:
    if code == "weak_password":
        return PlatformError(ErrorCode.WEAK_PASSWORD, sentence)
    if code in MEANINGS:
        meaning, ours = MEANINGS[code]
        return PlatformError(meaning, ours, errors=ADDRESS if code.startswith("email_address") else ())
    if status in (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY):
        return PlatformError(ErrorCode.INVALID_REQUEST, sentence)
    if status != httpx.codes.CONFLICT:  # Auth's answer to concurrent refreshes of one session
        faults.report("supabase.auth_refused", f"{status} {code}".rstrip(), message=sentence[:200])
    return ServiceError(f"Supabase Auth refuses a valid request ({status} {code})", answered=True)
