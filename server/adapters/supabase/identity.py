"""IdentityProvider on Supabase Auth. Each call has its own client, since signing in changes a client's identity."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import httpx
import structlog
from pydantic import SecretStr
from supabase_auth.errors import AuthApiError
from supabase_auth.types import AuthResponse, Session, UserAttributes, UserResponse

from server.adapters.supabase.auth_calls import AddressExistsError, MailLimitError, auth_call, refuse_nul
from server.adapters.supabase.claims import session_id_of
from server.adapters.supabase.client import ANON_KEY, SupabaseClient
from server.adapters.supabase.faults import SupabaseError
from server.ports import LinkToken, MailCode, MailProof, PkceCode, Principal, TokenPair
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

SESSION_GONE: Final = frozenset({401, 403, 404})
"""The statuses of /logout for a session that has ended already."""


class SupabaseIdentity:
    """Implements `server.ports.IdentityProvider`. `redirect_url` is the target of the links in e-mails."""

    def __init__(
        self,
        client: SupabaseClient,
        redirect_url: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._redirect_url = redirect_url
        self._now = now

    async def sign_up(
        self,
        email: str,
        password: SecretStr,
        name: str | None,
        *,
        address: str | None = None,
        captcha_token: str | None = None,
    ) -> TokenPair | None:
        refuse_nul(email, password.get_secret_value(), name or "")
        options: dict[str, Any] = {"data": {} if name is None else {"name": name}, "captcha_token": captcha_token}
        if self._redirect_url is not None:
            options["email_redirect_to"] = self._redirect_url
        credentials = {"email": email, "password": password.get_secret_value(), "options": options}
        try:
            answer = await auth_call(self._client, lambda: self._sign_up(credentials, address))
        except AddressExistsError:
            return None
        except MailLimitError as limit:
            if not limit.is_of_user:
                raise
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

    async def sign_in(
        self, email: str, password: SecretStr, *, address: str | None = None, captcha_token: str | None = None
    ) -> TokenPair:
        refuse_nul(email, password.get_secret_value())
        auth = self._client.visitor(address)
        credentials: Any = {
            "email": email,
            "password": password.get_secret_value(),
            "options": {"captcha_token": captcha_token},
        }
        answer = await auth_call(self._client, lambda: auth.sign_in_with_password(credentials))
        return self._granted(answer.session)

    async def refresh(self, refresh_token: SecretStr, *, address: str | None = None) -> TokenPair:
        auth = self._client.visitor(address)
        try:
            answer = await auth_call(self._client, lambda: auth.refresh_session(refresh_token.get_secret_value()))
        except PlatformError as refusal:
            if refusal.code is not ErrorCode.INVALID_REQUEST:
                raise
            raise PlatformError(ErrorCode.UNAUTHORIZED, "The refresh token is not valid. Sign in again.") from refusal
        return self._granted(answer.session)

    async def sign_out(self, principal: Principal, scope: Literal["local", "others", "global"]) -> None:
        """See the port. PostgREST itself accepts the access tokens of ended sessions until they expire."""
        admin, token = self._client.visitor().admin, principal.token().get_secret_value()

        async def log_out() -> None:
            try:
                await admin.sign_out(token, scope)
            except AuthApiError as answer:
                refused = self._client.faults.refuses_our_key(answer.status, answer.message, ANON_KEY)
                if refused is not None or answer.status not in SESSION_GONE:
                    raise

        await auth_call(self._client, log_out)

    async def verify_otp(
        self, proof: MailProof, *, address: str | None = None, captcha_token: str | None = None
    ) -> TokenPair | None:
        auth = self._client.visitor(address)
        if isinstance(proof, PkceCode):
            exchange: Any = {
                "auth_code": proof.code.get_secret_value(),
                "code_verifier": proof.verifier.get_secret_value(),
            }
            answer = await auth_call(self._client, lambda: auth.exchange_code_for_session(exchange))
            return self._granted(answer.session)
        params = _otp_params(proof, captcha_token)
        answer = await auth_call(self._client, lambda: auth.verify_otp(params))
        return None if answer.session is None else self._pair(answer.session)

    async def recover(self, email: str, *, address: str | None = None, captcha_token: str | None = None) -> None:
        refuse_nul(email)
        options: Any = {"redirect_to": self._redirect_url, "captcha_token": captcha_token}
        auth = self._client.visitor(address)
        await self._mailing(lambda: auth.reset_password_for_email(email, options))

    async def resend(
        self,
        email: str,
        kind: Literal["signup", "email_change"],
        *,
        address: str | None = None,
        captcha_token: str | None = None,
    ) -> None:
        refuse_nul(email)
        options = {"email_redirect_to": self._redirect_url, "captcha_token": captcha_token}
        credentials: Any = {"type": kind, "email": email, "options": options}
        auth = self._client.visitor(address)
        await self._mailing(lambda: auth.resend(credentials))

    async def _mailing(self, call: Callable[[], Awaitable[object]]) -> None:
        """One call that sends a mail if the account exists. Limits of mails are applied only then, so a refusal would
        reveal that the account exists: it is logged instead."""
        try:
            await auth_call(self._client, call)
        except MailLimitError as limit:
            if not limit.is_of_user:
                log.warning("supabase.mail_not_sent", hint="the project's limit of mails: set up an SMTP server")

    async def set_password(self, access_token: SecretStr, password: SecretStr, current: SecretStr | None) -> None:
        refuse_nul(password.get_secret_value())
        attributes: UserAttributes = {"password": password.get_secret_value()}
        if current is not None:
            attributes["current_password"] = current.get_secret_value()
        await auth_call(self._client, lambda: self._update(access_token, attributes))

    async def set_email(self, access_token: SecretStr, email: str) -> bool:
        refuse_nul(email)
        try:
            answer = await auth_call(self._client, lambda: self._update(access_token, {"email": email}))
        except AddressExistsError:
            return False
        except MailLimitError as limit:
            if not limit.is_of_user:
                raise
            return False
        return (answer.user.email or "").lower() == email.lower()

    async def _update(self, access_token: SecretStr, attributes: UserAttributes) -> UserResponse:
        """Change the token's user. The SDK's client must have a session, but refreshes none of a valid token."""
        auth = self._client.visitor()
        await auth.set_session(access_token.get_secret_value(), "unused")
        options: Any = {} if self._redirect_url is None else {"email_redirect_to": self._redirect_url}
        return await auth.update_user(attributes, options)

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
            is_anonymous=session.user.is_anonymous,
            session_id=session_id_of(session.access_token),
        )


def _otp_params(proof: MailCode | LinkToken, captcha_token: str | None) -> Any:
    options = {"captcha_token": captcha_token}
    if isinstance(proof, LinkToken):
        return {"token_hash": proof.token_hash.get_secret_value(), "type": proof.type, "options": options}
    refuse_nul(proof.email)
    return {"email": proof.email, "token": proof.code.get_secret_value(), "type": proof.type, "options": options}
