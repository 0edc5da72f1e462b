"""Authenticates an Authorization header, a token, an API key or a ticket as a `Principal` who may use an endpoint.

Independent of the transport: REST, WebSocket and SSE all use it. Nothing is authenticated without naming the access
that is asked for, and `authorize` alone decides whether it is granted.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import structlog
from cachetools import LRUCache

from server.aio import SingleFlight, StoppedError
from server.auth.api_keys import ApiKeys, is_api_key
from server.auth.gate import AccountGate
from server.auth.tickets import Purpose, TicketHolder, Tickets
from server.ports import Access, Account, AccountStore, Credential, CredentialStore, Principal, TokenVerifier
from server.protocol.codes import ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.resilience.rate_limiter import RateLimiter

log = structlog.get_logger(__name__)

OPERATORS_ONLY: Final = "This is for operators."
_SIGN_INS: Final = 64
"""The cached sign-ins of one user."""


class AccountOpener(Protocol):
    """Opens a user's account if needed, and continues its provisioning; `Provisioner` is one."""

    async def ensure_account(self, user_id: str, email: str, name: str | None = None) -> Account: ...


class Authenticator:
    """Verifies tokens, API keys and tickets, and opens an account with the first valid token of a user.

    A checked account or sign-in is cached with a TTL of `trust` seconds, and longer while Supabase is unavailable. So a
    block, or a sign-out at Supabase itself, takes effect after that time; `evict` makes it take effect at once. Users
    are refused only by an answer of the database. At most `cached` users are cached; `new_accounts` limits new ones,
    and `gate` decides who may have one. `requires_aal2` refuses tokens of users who signed in without a second factor;
    API keys are credentials of their own, which only such a sign-in, or another key, can make.
    Concurrent requests of a user, as after a network failure, share one check. Close with `aclose`.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        tickets: Tickets,
        accounts: AccountStore,
        opener: AccountOpener,
        credentials: CredentialStore,
        *,
        api_keys: ApiKeys | None = None,
        trust: float = 15.0,
        cached: int = 10_000,
        limiter: RateLimiter | None = None,
        gate: AccountGate | None = None,
        requires_aal2: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verifier = verifier
        self._tickets = tickets
        self._accounts = accounts
        self._opener = opener
        self._credentials = credentials
        self._api_keys = api_keys or ApiKeys(credentials)
        self._trust = trust
        self._limiter = limiter or RateLimiter({})
        self.gate = gate or AccountGate()
        self._requires_aal2 = requires_aal2
        self._clock = clock
        self._checked: LRUCache[str, _Checked] = LRUCache(cached)  # no TTL: used while Supabase is unavailable
        self._checking: SingleFlight[Credential, bool] = SingleFlight("sign-in", ignored=(PlatformError,))
        self._opening: SingleFlight[str, Account] = SingleFlight("account", ignored=(PlatformError,))

    async def header(self, authorization: str | None, access: Access, network: str = "") -> Principal:
        """Authenticate an Authorization header (`Bearer <access token or API key>`). Raises as `token` does."""
        if authorization is None:
            raise PlatformError(ErrorCode.UNAUTHORIZED)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise PlatformError(ErrorCode.UNAUTHORIZED, "The Authorization header must be: Bearer <access token>.")
        return await self.token(token.strip(), access, network)

    async def token(self, token: str, access: Access, network: str = "") -> Principal:
        """Authenticate an access token or an API key for an endpoint of this access. `network` is the client's: wrong
        API keys have a rate per network.

        Raises PlatformError(unauthorized | token_expired | forbidden | mfa_required | anonymous_not_allowed |
        registration_closed | account_blocked | rate_limited | supabase_unavailable).
        """
        if not token.isascii():  # header bytes that are not UTF-8 would reach the parser as surrogates
            raise PlatformError(ErrorCode.UNAUTHORIZED)
        if is_api_key(token):
            principal = await self._api_keys.verify(token, network)
        else:
            principal = await self._verifier.verify(token)
        self.gate.admit_credential(is_anonymous=principal.is_anonymous)
        if principal.key_id is None:
            self._refuse_weak(principal.aal)
            await self._refuse_ended(principal.credential)
        if access == "admin":
            await self._authorize_admin(principal)
        else:
            authorize(principal, access)
        await self.admit(principal)
        return principal

    async def _authorize_admin(self, principal: Principal) -> None:
        """Ask the database, each time, whether the user is an admin: what a token says may be an hour old."""
        account = await self._accounts.get(principal.user_id)
        if account is None or principal.key_id is not None or principal.ticket_id is not None or not account.is_admin:
            raise PlatformError(ErrorCode.FORBIDDEN, OPERATORS_ONLY)
        account.refuse_closed()

    async def ticket(self, text: str, purpose: Purpose, access: Access) -> Principal:
        """Redeem a ticket. Its principal has no access token, so it cannot read as the user.

        Raises PlatformError(unauthorized | forbidden | account_blocked | supabase_unavailable).
        """
        return await self._holder(await self._tickets.redeem(text, purpose), access)

    async def spent_ticket(self, text: str, purpose: Purpose, cursor: EventCursor, access: Access) -> Principal:
        """Accept a spent ticket again, with a cursor of its own stream. Raises as `ticket` does."""
        return await self._holder(self._tickets.resume(text, purpose, cursor), access)

    async def _holder(self, holder: TicketHolder, access: Access) -> Principal:
        account = await self._accounts.get(holder.user_id)
        if account is None:
            raise PlatformError(ErrorCode.UNAUTHORIZED)
        account.refuse_closed()
        principal = Principal(
            user_id=holder.user_id,
            email=account.email,
            access_token=None,
            expires_at=holder.expires_at,
            session_id=holder.session_id,
            aal=holder.aal,
            ticket_id=holder.ticket_id,
            key_id=holder.key_id,
            scopes=holder.scopes,
        )
        authorize(principal, access)
        if principal.key_id is None:
            self._refuse_weak(principal.aal)
        if await self._has_ended(principal.credential):
            raise _signed_out()
        return principal

    def _refuse_weak(self, aal: str) -> None:
        if self._requires_aal2 and aal != "aal2":
            raise PlatformError(ErrorCode.MFA_REQUIRED)

    async def _refuse_ended(self, credential: Credential) -> None:
        """Raises PlatformError(unauthorized) if the sign-in has ended, or its user was banned or deleted."""
        checked = self._checked.setdefault(credential.user_id, _Checked())
        checked_at = checked.sign_ins.get(credential)
        if checked_at is not None and self._clock() - checked_at < self._trust:
            return
        try:
            has_ended = await self._checking.run(credential, partial(self._has_ended, credential))
        except StoppedError as cause:
            raise PlatformError(ErrorCode.DRAINING) from cause
        except PlatformError as error:
            if error.code is not ErrorCode.SUPABASE_UNAVAILABLE or checked_at is None:
                raise
            return
        if has_ended:
            checked.sign_ins.pop(credential, None)
            raise _signed_out()
        if len(checked.sign_ins) >= _SIGN_INS:
            checked.sign_ins.clear()
        checked.sign_ins[credential] = self._clock()  # an evicted entry, if `evict` was called meanwhile

    async def _has_ended(self, credential: Credential) -> bool:
        return bool(await self._credentials.ended([credential]))

    def evict(self, user_id: str) -> None:
        """Check the user's account and sign-ins again at the next request: one of them may have ended."""
        self._checked.pop(user_id, None)

    async def admit(self, principal: Principal, name: str | None = None) -> None:
        """Admit a verified user: open the account if it is new, and continue its provisioning.

        Raises PlatformError(registration_closed | account_blocked | rate_limited | supabase_unavailable).
        """
        checked_at = self._account_checked_at(principal.user_id)
        if checked_at is not None and self._clock() - checked_at < self._trust:
            return
        try:
            if name is None:
                await self._open_once(principal)
            else:
                await self.open_account(principal.user_id, principal.email, name, is_anonymous=principal.is_anonymous)
        except PlatformError as error:
            if error.code is not ErrorCode.SUPABASE_UNAVAILABLE or checked_at is None:
                raise

    async def _open_once(self, principal: Principal) -> Account:
        """Call `open_account` once for concurrent requests of the user."""
        opening = partial(self.open_account, principal.user_id, principal.email, is_anonymous=principal.is_anonymous)
        try:
            return await self._opening.run(principal.user_id, opening)
        except StoppedError as cause:
            raise PlatformError(ErrorCode.DRAINING) from cause

    async def aclose(self) -> None:
        """Stop opening accounts."""
        await self._opening.aclose()
        await self._checking.aclose()

    @asynccontextmanager
    async def opening_account(self) -> AsyncIterator[None]:
        """Count a new account against the limit per minute; if the body raises, it does not count.

        Raises PlatformError(rate_limited) with retry_after.
        """
        try:
            await self._limiter.take("new_accounts")
        except PlatformError as refusal:
            log.warning("auth.too_many_new_accounts", retry_after=refusal.retry_after_seconds)
            raise
        try:
            yield
        except BaseException:
            await self._limiter.put_back("new_accounts")
            raise

    async def open_account(
        self,
        user_id: str,
        email: str,
        name: str | None = None,
        *,
        is_anonymous: bool = False,
        is_counted: bool = False,
    ) -> Account:
        """The user's account. Creates it if needed and allowed, and continues its provisioning.

        `is_counted`: the caller has passed the gate and entered `opening_account`. Raises as `admit`.
        """
        checked = self._checked.setdefault(user_id, _Checked())
        is_known = is_counted or checked.account_at is not None or await self._accounts.get(user_id) is not None
        if not is_known:
            self.gate.admit(email, is_anonymous=is_anonymous)
        async with nullcontext() if is_known else self.opening_account():
            account = await self._opener.ensure_account(user_id, email, name)
        checked.account_at = None
        account.refuse_closed()
        checked.account_at = self._clock()
        return account

    def _account_checked_at(self, user_id: str) -> float | None:
        checked = self._checked.get(user_id)
        return None if checked is None else checked.account_at


@dataclass(slots=True)
class _Checked:
    """When a user's account was checked, and each valid sign-in; by the authenticator's clock."""

    account_at: float | None = None
    sign_ins: dict[Credential, float] = field(default_factory=dict)


def _signed_out() -> PlatformError:
    return PlatformError(ErrorCode.UNAUTHORIZED, "This sign-in has ended. Sign in again.")


def authorize(principal: Principal, access: Access) -> None:
    """Raises PlatformError(forbidden) unless this principal may use an endpoint of this access. For admins nothing in a
    principal is enough."""
    if access == "admin":
        raise PlatformError(ErrorCode.FORBIDDEN, OPERATORS_ONLY)
    if access != "public" and access not in principal.scopes:
        raise PlatformError(ErrorCode.FORBIDDEN, f"This API key lacks the scope {access}.")
