"""Tickets: they replace the access token where a browser can only send a URL, as for sockets and event streams.

A ticket is a JWT that expires after seconds and can be redeemed once, so it is useless in a proxy's log. It is signed
with a key derived from SECRET_KEY and has its own audience, so a ticket cannot be used as an access token, nor vice
versa. An EventSource reconnects with the same URL: the ids of its events contain a proof, sent as Last-Event-ID, by
which the spent ticket is accepted again.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Protocol

import jwt
from jwt.types import Options
from pydantic import SecretStr

from server.ports import ALL_SCOPES, Principal, Scope
from server.protocol.codes import ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError

Purpose = Literal["chat"]
"""The use of a ticket. `chat`: opening `chat/stream` or `chat/events`."""

_ALGORITHM: Final = "HS256"
_AUDIENCE: Final = "ai-chat-platform/ticket/"
"""The prefix of a ticket's audience; its purpose follows."""
_CHECKED: Final[Options] = {
    "require": ["aud", "exp", "jti", "sub", "token_exp"],
    "verify_aud": True,
    "verify_exp": False,  # checked in `redeem`, with the injected clock
}
_TICKET_KEY: Final = b"ai-chat-platform/ticket/v2"
_PROOF_KEY: Final = b"ai-chat-platform/ticket-proof/v2"
_LONGEST: Final = 1024


class TicketLedger(Protocol):
    """Stores redeemed tickets; `SessionStore` is one."""

    async def redeem_ticket(self, ticket_id: str, expires_at: datetime) -> bool: ...


@dataclass(frozen=True, slots=True)
class IssuedTicket:
    text: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TicketHolder:
    """The user of a ticket; and of the access token or API key that it was issued for: expiry, sign-in, assurance
    level, key and scopes."""

    user_id: str
    expires_at: datetime
    ticket_id: str
    session_id: str | None
    aal: str
    key_id: str | None
    scopes: frozenset[Scope]


def _now() -> datetime:
    return datetime.now(UTC)


class Tickets:
    """Issues and redeems tickets. Tickets signed with the previous key are accepted during a rotation."""

    def __init__(
        self,
        ledger: TicketLedger,
        secret_key: SecretStr,
        previous: SecretStr | None = None,
        *,
        seconds: float = 30.0,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        accepted = [secret_key] if previous is None else [secret_key, previous]
        self._ledger = ledger
        self._keys = [_derive(key, _TICKET_KEY) for key in accepted]
        self._proof_keys = [_derive(key, _PROOF_KEY) for key in accepted]
        self._lifetime = timedelta(seconds=seconds)
        self._clock = clock

    def issue(self, principal: Principal, purpose: Purpose) -> IssuedTicket:
        """A ticket for this user and purpose. It expires not later than the access token."""
        expires_at = min(self._clock() + self._lifetime, principal.expires_at)
        claims = {
            "aud": _AUDIENCE + purpose,
            "exp": expires_at.timestamp(),
            "jti": secrets.token_urlsafe(16),
            "sub": principal.user_id,
            "session": principal.session_id,
            "aal": principal.aal,
            "key": principal.key_id,
            "scopes": sorted(principal.scopes),
            "token_exp": principal.expires_at.timestamp(),
        }
        return IssuedTicket(jwt.encode(claims, self._keys[0], _ALGORITHM), expires_at)

    async def redeem(self, text: str, purpose: Purpose) -> TicketHolder:
        """Redeem a ticket. Raises PlatformError(unauthorized) if it is forged, expired, spent or for another purpose.

        Raises PlatformError(supabase_unavailable) if the ledger is unavailable.
        """
        claims = self._claims(text, purpose)
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        if self._clock() >= expires_at or not await self._ledger.redeem_ticket(claims["jti"], expires_at):
            raise _refusal()
        return _holder(claims)

    def proof(self, ticket_id: str, epoch: str) -> str:
        """The proof that a stream opened with this ticket delivered this epoch, for the ids of its events."""
        return base64.urlsafe_b64encode(_proof(self._proof_keys[0], ticket_id, epoch)).rstrip(b"=").decode()

    def resume(self, text: str, purpose: Purpose, cursor: EventCursor) -> TicketHolder:
        """Accept a spent ticket again, with a cursor of its own stream, until its access token expires. Whether the
        sign-in has ended is for the caller to check. Raises PlatformError(unauthorized)."""
        claims = self._claims(text, purpose)
        shown = _decode(cursor.proof or "")
        known = any(hmac.compare_digest(_proof(key, claims["jti"], cursor.epoch), shown) for key in self._proof_keys)
        holder = _holder(claims)
        is_bound = holder.session_id is not None or holder.key_id is not None  # else its end would not be noticed
        if not known or not is_bound or self._clock() >= holder.expires_at:
            raise _refusal()
        return holder

    def _claims(self, text: str, purpose: Purpose) -> dict[str, Any]:
        """The claims of a ticket for this purpose, expired or not. Raises PlatformError(unauthorized)."""
        if len(text) > _LONGEST:
            raise _refusal()
        for key in self._keys:
            try:
                return jwt.decode(text, key, [_ALGORITHM], _CHECKED, audience=_AUDIENCE + purpose)
            except jwt.InvalidSignatureError:
                continue
            except Exception as cause:  # PyJWT may raise other errors for arbitrary input
                raise _refusal() from cause
        raise _refusal()


def _derive(secret_key: SecretStr, context: bytes) -> bytes:
    """Derive a separate key for each use, so that signatures are not valid for another use."""
    return hmac.digest(secret_key.get_secret_value().encode(), context, hashlib.sha256)


def _proof(key: bytes, ticket_id: str, epoch: str) -> bytes:
    return hmac.digest(key, f"{ticket_id}/{epoch}".encode(), hashlib.sha256)[:16]


def _holder(claims: dict[str, Any]) -> TicketHolder:
    return TicketHolder(
        user_id=claims["sub"],
        expires_at=datetime.fromtimestamp(claims["token_exp"], UTC),
        ticket_id=claims["jti"],
        session_id=claims.get("session"),
        aal=claims.get("aal", "aal1"),
        key_id=claims.get("key"),
        scopes=frozenset(claims.get("scopes", ALL_SCOPES)),  # of the last release: no scopes, and of a person
    )


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as cause:
        raise _refusal() from cause


def _refusal() -> PlatformError:
    return PlatformError(ErrorCode.UNAUTHORIZED, "The ticket is not valid, has expired or was used before.")
