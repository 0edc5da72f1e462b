"""What each foreign identity presents: tokens, API keys and tickets, forged where nobody would issue them."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from server.adapters.supabase.claims import principal_of
from server.auth.tickets import TicketLedger, Tickets
from server.ports import ALL_SCOPES, Access, Principal
from tests.stack.chat_client import ChatUser
from tests.stack.isolation import Foreigner

LONG_AGO: Final = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an identity presents at an endpoint of this access; None: nothing."""

    token: Callable[[Access], str | None]
    ticket: Callable[[Access], str]


async def credentials_of(
    ada: ChatUser,
    eve: ChatUser,
    env: Mapping[str, str],
    ledger: TicketLedger,
    tokens: Mapping[Foreigner, str],
    spent_ticket: str,
) -> dict[Foreigner, Credentials]:
    """The credentials of all identities. `tokens`: those that Supabase Auth issued; the rest is made here, in Ada's
    name, but for a key of Eve's."""
    key = _signing_key(env)
    claims = claims_of(ada.access_token)
    somebody = ec.generate_private_key(ec.SECP256R1())
    small = {access: await new_key(ada, ALL_SCOPES - {access}) for access in (*sorted(ALL_SCOPES), "admin")}
    small["public"] = small["admin"]
    others = await new_key(eve, ALL_SCOPES)
    revoked = await new_key(ada, ALL_SCOPES)
    assert (await ada.call("DELETE", f"/user/api-keys/{revoked.id}"))[0] == 204
    project = Tickets(ledger, SecretStr(env["SECRET_KEY"]))
    stranger = Tickets(ledger, SecretStr("another deployment's key"))
    earlier = Tickets(ledger, SecretStr(env["SECRET_KEY"]), clock=lambda: datetime.now(UTC) - LONG_AGO)
    own, eves = principal_of(ada.access_token, claims), principal_of(eve.access_token, claims_of(eve.access_token))

    def of_token(token: str) -> Credentials:
        principal = principal_of(token, claims_of(token))
        return Credentials(lambda _: token, lambda _: project.issue(principal, "chat").text)

    expired = jwt.encode(claims | {"exp": claims["iat"] - 60}, key.key, "ES256", {"kid": key.key_id})
    forged = jwt.encode(claims, somebody, "ES256", {"kid": key.key_id})
    elsewhere = claims | {"iss": "https://another.supabase.co/auth/v1"}
    other_project = jwt.encode(elsewhere, somebody, "ES256", {"kid": str(uuid.uuid4())})
    return {
        **{who: of_token(token) for who, token in tokens.items()},
        Foreigner.NOBODY: Credentials(lambda _: None, lambda _: spent_ticket),
        Foreigner.EXPIRED: Credentials(lambda _: expired, lambda _: earlier.issue(own, "chat").text),
        Foreigner.OTHER_KEY: Credentials(
            lambda _: others.text, lambda _: project.issue(others.principal(eves), "chat").text
        ),
        Foreigner.SMALL_KEY: Credentials(
            lambda access: small[access].text,
            lambda access: project.issue(small[access].principal(own), "chat").text,
        ),
        Foreigner.REVOKED_KEY: Credentials(
            lambda _: revoked.text, lambda _: project.issue(revoked.principal(own), "chat").text
        ),
        Foreigner.FORGED: Credentials(lambda _: forged, lambda _: _altered(project.issue(own, "chat").text)),
        Foreigner.OTHER_PROJECT: Credentials(lambda _: other_project, lambda _: stranger.issue(own, "chat").text),
    }


def _signing_key(env: Mapping[str, str]) -> jwt.PyJWK:
    """The key with which the project signs access tokens."""
    return jwt.PyJWK.from_json(Path(env["SIGNING_KEY_FILE"]).read_text(encoding="utf-8"))


def claims_of(token: str) -> dict[str, Any]:
    """A token's claims, unverified."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


async def sign_in(user: ChatUser) -> ChatUser:
    """The same user with the tokens of another sign-in."""
    status, answer = await user.call("POST", "/auth/login", {"email": user.email, "password": user.password})
    assert status == 200, answer
    return replace(user, access_token=answer["access_token"], refresh_token=answer["refresh_token"])


@dataclass(frozen=True, slots=True)
class Key:
    """An API key."""

    id: str
    text: str
    scopes: frozenset[Any]

    def principal(self, own: Principal) -> Principal:
        """Whoever presents it."""
        return replace(own, session_id=None, access_token=None, key_id=self.id, scopes=self.scopes)


async def new_key(user: ChatUser, scopes: frozenset[Any]) -> Key:
    """An API key of this user with these scopes."""
    status, created = await user.call("POST", "/user/api-keys", {"name": "script", "scopes": sorted(scopes)})
    assert status == 201, created
    return Key(created["id"], created["key"], scopes)


def _altered(ticket: str) -> str:
    """The ticket with another signature."""
    content, _, signature = ticket.rpartition(".")
    return f"{content}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
