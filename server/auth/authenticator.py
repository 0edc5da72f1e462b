"""Who is asking: from an Authorization header, a bare token or a ticket to a `Principal` whose account may be used.

Knows tokens, tickets and accounts, no transport: REST, WebSocket and SSE all ask here.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Protocol

import structlog
from cachetools import LRUCache
from pydantic import SecretStr

from server.aio import SingleFlight, StoppedError
from server.auth.tickets import Purpose, TicketHolder, Tickets
from server.ports import Account, AccountStore, Principal, TokenVerifier
from server.protocol.codes import ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.resilience.token_buckets import Buckets

log = structlog.get_logger(__name__)


class AccountOpener(Protocol):
    """Makes sure that a user has an account and that its provisioning goes on; `Provisioner` is one."""

    async def ensure_account(self, user_id: str, email: str, name: str | None = None) -> Account: ...


class Authenticator:
    """Verifies who asks and opens an account for whoever comes with a valid token for the first time.

    An account that was looked at is trusted for `trust` seconds (blocking one takes that long to close every door;
    a new turn is refused by the database at once), and longer while Supabase cannot be asked. At most `cached`
    accounts are held; `new_accounts` limits those that are made. All devices of a user that come at once, as they do
    after a loss of network, share one look. Close with `aclose`.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        tickets: Tickets,
        accounts: AccountStore,
        opener: AccountOpener,
        *,
        trust: float = 15.0,
        cached: int = 10_000,
        new_accounts: Buckets | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verifier = verifier
        self._tickets = tickets
        self._accounts = accounts
        self._opener = opener
        self._trust = trust
        self._new_accounts = new_accounts or Buckets(0)
        self._clock = clock
        self._seen: LRUCache[str, float] = LRUCache(cached)  # when; without expiry, since an old one still counts
        self._opening: SingleFlight[str, Account] = SingleFlight("account", ignored=(PlatformError,))

    async def header(self, authorization: str | None) -> Principal:
        """Authenticate an Authorization header (`Bearer <access token>`). Raises as `token` does."""
        if authorization is None:
            raise PlatformError(ErrorCode.UNAUTHORIZED)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise PlatformError(ErrorCode.UNAUTHORIZED, "The Authorization header must be: Bearer <access token>.")
        return await self.token(token.strip())

    async def token(self, token: str) -> Principal:
        """Authenticate an access token.

        Raises PlatformError(unauthorized | token_expired | account_blocked | supabase_unavailable).
        """
        if not token.isascii():  # header bytes that are no text must not reach a parser as surrogates
            raise PlatformError(ErrorCode.UNAUTHORIZED)
        principal = await self._verifier.verify(token)
        await self.admit(principal)
        return principal

    async def ticket(self, text: str, purpose: Purpose) -> Principal:
        """Spend a ticket. Its principal carries no access token, so it can make no reads of its own.

        Raises PlatformError(unauthorized | account_blocked | supabase_unavailable).
        """
        return await self._holder(await self._tickets.redeem(text, purpose))

    async def spent_ticket(self, text: str, purpose: Purpose, cursor: EventCursor) -> Principal:
        """Let a spent ticket in again with a cursor of its own stream, as `ticket` does. Raises as `ticket` does."""
        return await self._holder(await self._tickets.resume(text, purpose, cursor))

    async def _holder(self, holder: TicketHolder) -> Principal:
        account = await self._accounts.get(holder.user_id)
        if account is None:
            raise PlatformError(ErrorCode.UNAUTHORIZED)
        account.refuse_closed()
        return Principal(
            holder.user_id, account.email, SecretStr(""), holder.token_expires_at, ticket_id=holder.ticket_id
        )

    async def admit(self, principal: Principal, name: str | None = None) -> None:
        """Let a verified user in: open the account on first sight, keep its provisioning going.

        Raises PlatformError(account_blocked | rate_limited | supabase_unavailable).
        """
        seen_at = self._seen.get(principal.user_id)
        if seen_at is not None and self._clock() - seen_at < self._trust:
            return
        try:
            if name is None:
                await self._open_once(principal)
            else:
                await self.open_account(principal.user_id, principal.email, name)
        except PlatformError as error:
            if error.code is not ErrorCode.SUPABASE_UNAVAILABLE or seen_at is None:
                raise

    async def _open_once(self, principal: Principal) -> Account:
        """`open_account`, once for all who ask while it is under way."""
        opening = partial(self.open_account, principal.user_id, principal.email)
        try:
            return await self._opening.run(principal.user_id, opening)
        except StoppedError as cause:
            raise PlatformError(ErrorCode.DRAINING) from cause

    async def aclose(self) -> None:
        """Open no more accounts."""
        await self._opening.aclose()

    @contextmanager
    def opening_account(self) -> Iterator[None]:
        """Around what makes a new account: each takes one of those of this minute, and gives it back if it fails.

        Raises PlatformError(rate_limited) with retry_after.
        """
        try:
            self._new_accounts.take("")
        except PlatformError as refusal:
            log.warning("auth.too_many_new_accounts", retry_after=refusal.retry_after_seconds)
            raise
        try:
            yield
        except BaseException:
            self._new_accounts.give_back("")
            raise

    async def open_account(
        self, user_id: str, email: str, name: str | None = None, *, is_counted: bool = False
    ) -> Account:
        """The user's account, made if need be, with provisioning under way unless it is done.

        `is_counted`: it is opened inside of `opening_account`. Raises as `admit`.
        """
        is_known = is_counted or user_id in self._seen or await self._accounts.get(user_id) is not None
        with nullcontext() if is_known else self.opening_account():
            account = await self._opener.ensure_account(user_id, email, name)
        self._seen.pop(user_id, None)
        account.refuse_closed()
        self._seen[user_id] = self._clock()
        return account
