"""A ticket opens one thing, once, for seconds, for one user."""

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from pydantic import SecretStr

from server.ports import Principal
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.tickets import Tickets

SECRET, OTHER = SecretStr("one secret key, long enough to use"), SecretStr("other secret key, long enough to use")
START = datetime(2030, 1, 1, tzinfo=UTC)
ANN = Principal("ann", "ann@example.com", SecretStr("the-access-token"), START + timedelta(hours=1), "sign-in")


@dataclass(slots=True)
class Ledger:
    shown: set[str] = field(default_factory=set)
    signed_in: set[tuple[str, str]] = field(default_factory=lambda: {("ann", "sign-in")})

    async def redeem_ticket(self, ticket_id: str, expires_at: datetime) -> bool:
        first = ticket_id not in self.shown
        self.shown.add(ticket_id)
        return first

    async def is_signed_in(self, user_id: str, session_id: str) -> bool:
        return (user_id, session_id) in self.signed_in


@dataclass(slots=True)
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


def _tickets(secret: SecretStr = SECRET, previous: SecretStr | None = None, clock: Clock | None = None) -> Tickets:
    return Tickets(Ledger(), secret, previous, clock=clock or Clock())


async def test_a_ticket_stands_for_its_user_once() -> None:
    tickets = _tickets()
    ticket = tickets.issue(ANN, "chat")
    holder = await tickets.redeem(ticket.text, "chat")
    assert (holder.user_id, holder.token_expires_at) == ("ann", ANN.expires_at)
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


async def test_a_ticket_never_outlives_the_token_it_was_bought_with() -> None:
    soon = Principal("ann", "", SecretStr("t"), START + timedelta(seconds=5))
    assert _tickets().issue(soon, "chat").expires_at == soon.expires_at


async def test_a_ticket_for_another_purpose_opens_nothing() -> None:
    tickets = _tickets()
    with pytest.raises(PlatformError, match="unauthorized"):
        await tickets.redeem(tickets.issue(ANN, "chat").text, "other")  # type: ignore[arg-type]


async def test_tickets_survive_the_rotation_of_the_key_and_no_other_change_of_it() -> None:
    ticket = _tickets(SECRET).issue(ANN, "chat").text
    assert (await _tickets(OTHER, previous=SECRET).redeem(ticket, "chat")).user_id == "ann"
    with pytest.raises(PlatformError, match="unauthorized"):
        await _tickets(OTHER).redeem(ticket, "chat")


async def test_a_ticket_holds_neither_token_nor_address() -> None:
    body = _tickets().issue(ANN, "chat").text.partition(".")[0]
    plain = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    assert b"the-access-token" not in plain
    assert b"example.com" not in plain


def _forged() -> str:
    body, _, signature = _tickets().issue(ANN, "chat").text.partition(".")
    claims = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    changed = base64.urlsafe_b64encode(orjson.dumps({**claims, "user": "bob"})).rstrip(b"=").decode()
    return f"{changed}.{signature}"


@pytest.mark.parametrize(
    "text", ["", ".", "a", "a.b", "é.é", "e30.", "e30.AAAA", "x" * 5000, f"{'x' * 5000}.", _forged()]
)
async def test_what_we_did_not_sign_is_refused(text: str) -> None:
    with pytest.raises(PlatformError, match="unauthorized"):
        await _tickets().redeem(text, "chat")


async def _spent(tickets: Tickets, whose: Principal = ANN) -> tuple[str, str]:
    """A ticket that was shown, and its id."""
    text = tickets.issue(whose, "chat").text
    return text, (await tickets.redeem(text, "chat")).ticket_id


def _seen(tickets: Tickets, ticket_id: str, epoch: str = "e1", *, shown: str | None = None) -> EventCursor:
    """A cursor with the proof of `shown`, where another epoch was shown."""
    return EventCursor.parse(f"{epoch}:7:{tickets.proof(ticket_id, shown or epoch)}")


async def test_a_spent_ticket_is_good_again_with_a_cursor_of_its_stream_until_the_token_ends() -> None:
    clock = Clock()
    tickets = _tickets(clock=clock)
    text, ticket_id = await _spent(tickets)
    for minutes in (0, 30, 29):
        clock.now += timedelta(minutes=minutes)
        holder = await tickets.resume(text, "chat", _seen(tickets, ticket_id))
        assert (holder.user_id, holder.token_expires_at, holder.ticket_id) == ("ann", ANN.expires_at, ticket_id)
    clock.now += timedelta(minutes=1)
    with pytest.raises(PlatformError, match="unauthorized"):
        await tickets.resume(text, "chat", _seen(tickets, ticket_id))


async def test_a_cursor_of_another_ticket_epoch_or_server_lets_nobody_in() -> None:
    tickets = _tickets()
    text, ticket_id = await _spent(tickets)
    _, anothers = await _spent(tickets, Principal("ben", "", SecretStr("t"), ANN.expires_at, "sign-in"))
    _, own_other = await _spent(tickets)
    wrong = [
        _seen(tickets, anothers),
        _seen(tickets, own_other),
        _seen(tickets, ticket_id, "e1", shown="e2"),
        _seen(_tickets(OTHER), ticket_id),
        EventCursor("e1", 7),
        EventCursor("e1", 7, ""),
        EventCursor("e1", 7, "AAAA"),
        EventCursor("e1", 7, "not-base64!"),
        EventCursor("e1", 7, tickets.proof(ticket_id, "e1")[:-1]),
        EventCursor("e1", 7, text.partition(".")[2]),
    ]
    for cursor in wrong:
        with pytest.raises(PlatformError, match="unauthorized"):
            await tickets.resume(text, "chat", cursor)


async def test_after_a_sign_out_or_without_a_sign_in_a_spent_ticket_stays_spent() -> None:
    ledger = Ledger()
    tickets = Tickets(ledger, SECRET, clock=Clock())
    text, ticket_id = await _spent(tickets)
    ledger.signed_in.clear()
    with pytest.raises(PlatformError, match="unauthorized"):
        await tickets.resume(text, "chat", _seen(tickets, ticket_id))
    nameless, ticket_id = await _spent(tickets, Principal("ann", "", SecretStr("t"), ANN.expires_at))
    with pytest.raises(PlatformError, match="unauthorized"):
        await tickets.resume(nameless, "chat", _seen(tickets, ticket_id))


async def test_a_proof_survives_the_rotation_of_the_key() -> None:
    before = _tickets()
    text, ticket_id = await _spent(before)
    assert await _tickets(OTHER, previous=SECRET).resume(text, "chat", _seen(before, ticket_id))


async def test_a_forged_ticket_is_refused_whatever_it_is_shown_with() -> None:
    tickets = _tickets()
    with pytest.raises(PlatformError, match="unauthorized"):
        await tickets.resume(_forged(), "chat", _seen(tickets, "x"))
