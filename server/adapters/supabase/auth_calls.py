"""One call of Supabase Auth, and its errors in the protocol's terms: the user's fault, or the service's."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import httpx
from supabase_auth.errors import AuthApiError, AuthError, CustomAuthError

from server.adapters.supabase.client import ANON_KEY, SupabaseClient
from server.adapters.supabase.faults import Faults
from server.protocol.codes import ERRORS, ErrorCode
from server.protocol.errors import FieldError, PlatformError
from server.resilience import ServiceError, retry_after_in

SECONDS: Final = 10.0
"""The deadline of one call. Auth hashes passwords with bcrypt and may send an e-mail before it answers."""

RATE_LIMIT_SECONDS: Final = 60.0
"""The `retry_after` of a 429 without one."""

EXISTS: Final = frozenset({"user_already_exists", "email_exists"})

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
    "signup_disabled": (ErrorCode.REGISTRATION_CLOSED, "Registration is closed."),
    "email_provider_disabled": (ErrorCode.REGISTRATION_CLOSED, "Registration by e-mail is closed."),
    "otp_expired": (ErrorCode.OTP_EXPIRED, ERRORS[ErrorCode.OTP_EXPIRED].sentence),
    "flow_state_not_found": (ErrorCode.OTP_EXPIRED, ERRORS[ErrorCode.OTP_EXPIRED].sentence),
    "flow_state_expired": (ErrorCode.OTP_EXPIRED, ERRORS[ErrorCode.OTP_EXPIRED].sentence),
    "bad_code_verifier": (ErrorCode.OTP_EXPIRED, "This link belongs to another app or browser: open it there."),
    "captcha_failed": (ErrorCode.CAPTCHA_FAILED, ERRORS[ErrorCode.CAPTCHA_FAILED].sentence),
    "insufficient_aal": (ErrorCode.MFA_REQUIRED, ERRORS[ErrorCode.MFA_REQUIRED].sentence),
    "reauthentication_needed": (ErrorCode.REAUTHENTICATION_REQUIRED, "Sign in again to change this."),
    "same_password": (ErrorCode.WEAK_PASSWORD, "The new password must differ from the old one."),
    "email_address_invalid": (ErrorCode.INVALID_REQUEST, "This e-mail address cannot be used."),
    "email_address_not_authorized": (ErrorCode.INVALID_REQUEST, "This e-mail address cannot be used."),
}
"""Auth's error codes (supabase.com/docs/guides/auth/debugging/error-codes) in the protocol's terms."""

_OF_USER: Final = "you can only request this after"
"""Auth's words for the limit of one user; its code is the same for that of the whole project."""

T = TypeVar("T")


async def auth_call(client: SupabaseClient, call: Callable[[], Awaitable[T]]) -> T:
    """One call of Auth without retries, since a sign-up sends an e-mail, and a refresh token can be used only once."""

    async def translated() -> T:
        try:
            with client.faults.translated(ANON_KEY):
                return await call()
        except AuthError as cause:
            raise _translated(cause, client.faults) from None
        except (ValueError, TypeError, LookupError, AttributeError) as cause:  # the SDK could not read the answer
            raise ServiceError("Supabase Auth answered with something unreadable") from cause

    return await client.authenticating.once(translated, deadline=SECONDS)


def refuse_nul(*texts: str) -> None:
    """Refuse a NUL character, which PostgreSQL cannot store: Auth answers 500, which would look like an outage."""
    if any("\0" in text for text in texts):
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The text contains a NUL character.")


class AddressExistsError(Exception):
    """The address is registered already (answered by a project that does not confirm addresses)."""


class MailLimitError(PlatformError):
    """Auth sends no mail now. `is_of_user`: it sent this user one less than a minute ago; else the project's limit."""

    def __init__(self, *, is_of_user: bool, retry_after: float) -> None:
        super().__init__(ErrorCode.RATE_LIMITED, retry_after=retry_after)
        self.is_of_user = is_of_user


def _translated(error: AuthError, faults: Faults) -> Exception:
    """The error that corresponds to an SDK error: the user's fault, or the service's, including our key."""
    status = error.status if isinstance(error, AuthApiError | CustomAuthError) else 0
    code = str(error.code or "")
    if code in EXISTS:
        return AddressExistsError()
    answer = getattr(error.__cause__, "response", None)
    retry_after = None if answer is None else retry_after_in(answer.headers)
    if status == 0 or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return ServiceError(
            f"Supabase Auth is unavailable ({code or status})", retry_after=retry_after, answered=status == 500
        )
    if status == httpx.codes.TOO_MANY_REQUESTS:
        retry_after = retry_after or RATE_LIMIT_SECONDS
        if code == "over_email_send_rate_limit":
            return MailLimitError(is_of_user=_OF_USER in error.message, retry_after=retry_after)
        return PlatformError(ErrorCode.RATE_LIMITED, retry_after=retry_after)
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
