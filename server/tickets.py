"""Tickets: what a browser shows instead of its access token where only a URL can carry something, as sockets do.

A ticket is signed with SECRET_KEY, lives for seconds and is redeemed once: seen in a proxy's log it opens nothing. An
EventSource comes back with the same URL: it is let in by a proof that its own stream gave it, in Last-Event-ID.
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

import orjson
from pydantic import SecretStr

from server.ports import Principal
from server.protocol.codes import ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError

Purpose = Literal["chat"]
"""What a ticket is for. `chat`: opening `chat/stream` or `chat/events`."""

_KEY_CONTEXT: Final = b"ai-chat-platform/ticket/v1"
_PROOF_CONTEXT: Final = "seen"
"""No ticket begins like this: those are JSON."""
_LONGEST: Final = 1024


class TicketLedger(Protocol):
    """Remembers which tickets were shown; `SessionStore` is one."""

    async def redeem_ticket(self, ticket_id: str, expires_at: datetime) -> bool: ...

    async def is_signed_in(self, user_id: str, session_id: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class IssuedTicket:
    text: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TicketHolder:
    """Whom a ticket stands for, and when the access token it was bought with expires."""

    user_id: str
    token_expires_at: datetime
    ticket_id: str


def _now() -> datetime:
    return datetime.now(UTC)


class Tickets:
    """Issues and redeems tickets. Tickets signed with the previous key are honoured while keys rotate."""

    def __init__(
        self,
        ledger: TicketLedger,
        secret_key: SecretStr,
        previous: SecretStr | None = None,
        *,
        seconds: float = 30.0,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._ledger = ledger
        self._key = _derive(secret_key)
        self._accepted = (self._key, *(() if previous is None else (_derive(previous),)))
        self._lifetime = timedelta(seconds=seconds)
        self._clock = clock

    def issue(self, principal: Principal, purpose: Purpose) -> IssuedTicket:
        """A ticket for this user and purpose, never outliving the access token it is bought with."""
        expires_at = min(self._clock() + self._lifetime, principal.expires_at)
        body = orjson.dumps(
            {
                "id": secrets.token_urlsafe(16),
                "for": purpose,
                "user": principal.user_id,
                "session": principal.session_id,
                "token_until": principal.expires_at.timestamp(),
                "until": expires_at.timestamp(),
            }
        )
        return IssuedTicket(f"{_encode(body)}.{_encode(_sign(self._key, body))}", expires_at)

    async def redeem(self, text: str, purpose: Purpose) -> TicketHolder:
        """Spend a ticket. Raises PlatformError(unauthorized) for any that is forged, expired, spent or for another use.

        Raises PlatformError(supabase_unavailable) when the ledger cannot be asked.
        """
        claims = self._claims(text)
        expires_at = datetime.fromtimestamp(claims["until"], UTC)
        if claims["for"] != purpose or self._clock() >= expires_at:
            raise _refusal()
        if not await self._ledger.redeem_ticket(claims["id"], expires_at):
            raise _refusal()
        return _holder(claims)

    def proof(self, ticket_id: str, epoch: str) -> str:
        """What shows that a stream opened with this ticket has shown this epoch: it goes into the ids of its events."""
        return _encode(_proof(self._key, ticket_id, epoch))

    async def resume(self, text: str, purpose: Purpose, cursor: EventCursor) -> TicketHolder:
        """Admit a spent ticket again, with a cursor that its own stream gave out: until the access token it was bought
        with expires, or the user signs out. Raises as `redeem` does."""
        claims = self._claims(text)
        shown = _decode(cursor.proof or "")
        known = any(hmac.compare_digest(_proof(key, claims["id"], cursor.epoch), shown) for key in self._accepted)
        holder, session_id = _holder(claims), claims.get("session")
        if not known or claims["for"] != purpose or session_id is None or self._clock() >= holder.token_expires_at:
            raise _refusal()
        if not await self._ledger.is_signed_in(holder.user_id, session_id):
            raise _refusal()
        return holder

    def _claims(self, text: str) -> dict[str, Any]:
        body_text, dot, signature_text = text.partition(".")
        if not dot or len(text) > _LONGEST:
            raise _refusal()
        body, signature = _decode(body_text), _decode(signature_text)
        if not any(hmac.compare_digest(_sign(key, body), signature) for key in self._accepted):
            raise _refusal()
        claims: dict[str, Any] = orjson.loads(body)
        return claims


def _derive(secret_key: SecretStr) -> bytes:
    """A key of its own for tickets: a signature made here is worth nothing elsewhere, and the other way round."""
    return hmac.digest(secret_key.get_secret_value().encode(), _KEY_CONTEXT, hashlib.sha256)


def _sign(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, hashlib.sha256)


def _proof(key: bytes, ticket_id: str, epoch: str) -> bytes:
    return _sign(key, f"{_PROOF_CONTEXT}/{ticket_id}/{epoch}".encode())[:16]


def _holder(claims: dict[str, Any]) -> TicketHolder:
    return TicketHolder(claims["user"], datetime.fromtimestamp(claims["token_until"], UTC), claims["id"])


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as cause:
        raise _refusal() from cause


def _refusal() -> PlatformError:
    return PlatformError(ErrorCode.UNAUTHORIZED, "The ticket is not valid, has expired or was used before.")
