"""A ticket is valid once, for seconds, for one user and one purpose."""

import base64
import hashlib
import hmac
import warnings
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import orjson
import pytest
from jwt.warnings import InsecureKeyLengthWarning
from pydantic import SecretStr

from server.auth.tickets import Tickets
from server.ports import ALL_SCOPES, Principal
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError

SECRET, OTHER = SecretStr("one secret key, long enough to use"), SecretStr("other secret key, long enough to use")
START = datetime(2030, 1, 1, tzinfo=UTC)
ANN = Principal("ann", "ann@example.com", SecretStr("the-access-token"), START + timedelta(hours=1), "sign-in")


@dataclass(slots=True)
class Ledger:
    shown: set[str] = field(default_factory=set)

    async def redeem_ticket(self, ticket_id: str, expires_at: datetime) -> bool:
        first = ticket_id not in self.shown
        self.shown.add(ticket_id)
        return first


@dataclass(slots=True)
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


def _tickets(secret: SecretStr = SECRET, previous: SecretStr | None = None, clock: Clock | None = None) -> Tickets:
    return Tickets(Ledger(), secret, previous, clock=clock or Clock())


async def test_a_ticket_is_redeemed_once() -> None:
    tickets = _tickets()
    ticket = tickets.issue(ANN, "chat")
    holder = await tickets.redeem(ticket.text, "chat")
    assert (holder.user_id, holder.expires_at) == ("ann", ANN.expires_at)
    with pytest.raises(PlatformError, match="unauthorized"):
        await tickets.redeem(ticket.text, "chat")


async def test_a_ticket_expires_after_thirty_seconds() -> None:
    clock = Clock()
    tickets = _tickets(clock=clock)
    late, in_time = tickets.issue(ANN, "chat"), tickets.issue(ANN, "chat")
    assert late.expires_at == START + timedelta(seconds=30)
    clock.now += timedelta(seconds=29)
    assert await tickets.redeem(in_time.text, "chat")
    clock.now += timedelta(seconds=1)
    with pytest.raises(PlatformError, match="unauthorized"):
        await tickets.redeem(late.text, "chat")


async def test_a_ticket_expires_not_later_than_its_access_token() -> None:
    soon = Principal("ann", "", SecretStr("t"), START + timedelta(seconds=5))
    assert _tickets().issue(soon, "chat").expires_at == soon.expires_at


async def test_a_ticket_for_another_purpose_is_refused() -> None:
    tickets = _tickets()
    with pytest.raises(PlatformError, match="unauthorized"):
        await tickets.redeem(tickets.issue(ANN, "chat").text, "other")  # type: ignore[arg-type]


async def test_tickets_stay_valid_after_a_rotation_of_the_key_only() -> None:
    ticket = _tickets(SECRET).issue(ANN, "chat").text
    assert (await _tickets(OTHER, previous=SECRET).redeem(ticket, "chat")).user_id == "ann"
    with pytest.raises(PlatformError, match="unauthorized"):
        await _tickets(OTHER).redeem(ticket, "chat")


async def test_a_ticket_contains_neither_token_nor_e_mail_address() -> None:
    plain = str(jwt.decode(_tickets().issue(ANN, "chat").text, options={"verify_signature": False}))
    assert "'sub': 'ann'" in plain
    assert "the-access-token" not in plain
    assert "example.com" not in plain


def _derived_key() -> bytes:
    return hmac.digest(SECRET.get_secret_value().encode(), b"ai-chat-platform/ticket/v2", hashlib.sha256)


def _claims(**changes: object) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(_tickets().issue(ANN, "chat").text, options={"verify_signature": False})
    return {name: value for name, value in (claims | changes).items() if value is not None}


def _signed(key: str | bytes | None = None, algorithm: str = "HS256", **changes: object) -> str:
    """A JWT with the claims of a ticket but for `changes`, by default signed with the key of tickets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureKeyLengthWarning)  # the key is one for HS256
        return jwt.encode(_claims(**changes), _derived_key() if key is None else key, algorithm)


def _forged(text: str | None = None) -> str:
    """A ticket of ANN with her name replaced, and her signature."""
    header, _, signature = (text or _tickets().issue(ANN, "chat").text).split(".")
    changed = base64.urlsafe_b64encode(orjson.dumps(_claims(sub="bob"))).rstrip(b"=").decode()
    return f"{header}.{changed}.{signature}"


def _with_another_signature() -> str:
    signed, _, signature = _tickets().issue(ANN, "chat").text.rpartition(".")
    return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


async def test_the_key_of_tickets_signs_tickets() -> None:
    """The tests of refused tickets rely on it."""
    assert (await _tickets().redeem(_signed(), "chat")).user_id == "ann"


ACCESS_TOKEN = {
    "aud": "authenticated",
    "role": "authenticated",
    "iss": "https://p.supabase.co/auth/v1",
    "email": "a@b.c",
}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(_signed(aud="authenticated"), id="audience of access tokens"),
        pytest.param(_signed(aud=None), id="no audience"),
        pytest.param(_signed(aud="ai-chat-platform/ticket/"), id="no purpose"),
        pytest.param(_signed(aud="ai-chat-platform/ticket/other"), id="another purpose"),
        pytest.param(_signed(exp=None), id="no expiry"),
        pytest.param(_signed(jti=None), id="no id"),
        pytest.param(_signed(sub=None), id="no user"),
        pytest.param(_signed(token_exp=None), id="no end of the token"),
        pytest.param(_signed(exp=START.timestamp()), id="expired"),
        pytest.param(_signed(algorithm="none", key=""), id="unsigned"),
        pytest.param(_signed(algorithm="HS384"), id="another algorithm"),
        pytest.param(_signed(algorithm="HS512"), id="yet another algorithm"),
        pytest.param(_signed(key=SECRET.get_secret_value()), id="signed with SECRET_KEY itself"),
        pytest.param(_signed(key="x" * 32), id="another key"),
        pytest.param(_signed(key=SECRET.get_secret_value(), **ACCESS_TOKEN), id="access token"),
        pytest.param(_signed(**ACCESS_TOKEN), id="access token signed with the key of tickets"),
        pytest.param(_forged(), id="forged"),
        pytest.param(_with_another_signature(), id="another signature"),
        pytest.param(_signed().rpartition(".")[0] + ".", id="no signature"),
        pytest.param(_signed(session="x" * 2000), id="too long"),
    ],
)
async def test_a_forged_or_malformed_ticket_is_refused(text: str) -> None:
    with pytest.raises(PlatformError, match="unauthorized"):
        await _tickets().redeem(text, "chat")


@pytest.mark.parametrize(
    "text", ["", ".", "a", "a.b", "a.b.c", "é.é.é", "\ud800.a.b", "e30.", "e30.e30.AAAA", "x" * 5000, f"{'x' * 5000}.."]
)
async def test_a_ticket_with_another_signature_is_refused(text: str) -> None:
    with pytest.raises(PlatformError, match="unauthorized"):
        await _tickets().redeem(text, "chat")


async def _spent(tickets: Tickets, principal: Principal = ANN) -> tuple[str, str]:
    """A redeemed ticket and its id."""
    text = tickets.issue(principal, "chat").text
    return text, (await tickets.redeem(text, "chat")).ticket_id


def _cursor(tickets: Tickets, ticket_id: str, epoch: str = "e1", *, shown: str | None = None) -> EventCursor:
    """A cursor with the proof of the epoch `shown`, which may be another."""
    return EventCursor.parse(f"{epoch}:7:{tickets.proof(ticket_id, shown or epoch)}")


async def test_a_spent_ticket_is_accepted_with_a_cursor_of_its_stream_until_the_token_expires() -> None:
    clock = Clock()
    tickets = _tickets(clock=clock)
    text, ticket_id = await _spent(tickets)
    for minutes in (0, 30, 29):
        clock.now += timedelta(minutes=minutes)
        holder = tickets.resume(text, "chat", _cursor(tickets, ticket_id))
        assert (holder.user_id, holder.expires_at, holder.ticket_id) == ("ann", ANN.expires_at, ticket_id)
    clock.now += timedelta(minutes=1)
    with pytest.raises(PlatformError, match="unauthorized"):
        tickets.resume(text, "chat", _cursor(tickets, ticket_id))


async def test_a_cursor_of_another_ticket_epoch_or_server_is_refused() -> None:
    tickets = _tickets()
    text, ticket_id = await _spent(tickets)
    _, anothers = await _spent(tickets, Principal("ben", "", SecretStr("t"), ANN.expires_at, "sign-in"))
    _, own_other = await _spent(tickets)
    wrong = [
        _cursor(tickets, anothers),
        _cursor(tickets, own_other),
        _cursor(tickets, ticket_id, "e1", shown="e2"),
        _cursor(_tickets(OTHER), ticket_id),
        EventCursor("e1", 7),
        EventCursor("e1", 7, ""),
        EventCursor("e1", 7, "AAAA"),
        EventCursor("e1", 7, "not-base64!"),
        EventCursor("e1", 7, tickets.proof(ticket_id, "e1")[:-1]),
        EventCursor("e1", 7, text.rpartition(".")[2]),
    ]
    for cursor in wrong:
        with pytest.raises(PlatformError, match="unauthorized"):
            tickets.resume(text, "chat", cursor)


async def test_a_spent_ticket_without_a_sign_in_or_key_is_refused() -> None:
    tickets = _tickets()
    nameless, ticket_id = await _spent(tickets, Principal("ann", "", SecretStr("t"), ANN.expires_at))
    with pytest.raises(PlatformError, match="unauthorized"):
        tickets.resume(nameless, "chat", _cursor(tickets, ticket_id))


async def test_a_ticket_says_what_it_was_issued_for() -> None:
    tickets = _tickets()
    key = Principal("ann", "", None, ANN.expires_at, key_id="key", scopes=frozenset({"read"}))
    holder = await tickets.redeem(tickets.issue(key, "chat").text, "chat")
    assert (holder.key_id, sorted(holder.scopes), holder.session_id) == ("key", ["read"], None)
    person = await tickets.redeem(tickets.issue(replace(ANN, aal="aal2"), "chat").text, "chat")
    assert (person.session_id, person.aal, person.key_id, person.scopes) == ("sign-in", "aal2", None, ALL_SCOPES)


async def test_a_proof_stays_valid_after_a_rotation_of_the_key() -> None:
    before = _tickets()
    text, ticket_id = await _spent(before)
    assert _tickets(OTHER, previous=SECRET).resume(text, "chat", _cursor(before, ticket_id))


async def test_a_forged_ticket_is_refused_with_any_cursor() -> None:
    tickets = _tickets()
    with pytest.raises(PlatformError, match="unauthorized"):
        tickets.resume(_forged(), "chat", _cursor(tickets, "x"))
