"""Users of a Supabase project with tokens of their own, and their requests to its REST interface."""

import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
from pydantic import SecretStr

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.identity import SupabaseIdentity
from server.adapters.supabase.sessions import SupabaseSessionStore
from server.ports import Estimate, NewTurn, Principal, TurnEnd
from server.protocol.limits import Allowance
from server.protocol.shapes import Turn, TurnStatus, Usage

PASSWORD = SecretStr("Passw0rd-for-tests")


def client_of(env: dict[str, str]) -> SupabaseClient:
    """The adapter's client for the project that `env` names."""
    return SupabaseClient(
        env["SUPABASE_URL"], SecretStr(env["SUPABASE_ANON_KEY"]), SecretStr(env["SUPABASE_SERVICE_KEY"])
    )


def fresh_address() -> str:
    return f"{uuid.uuid4().hex}@example.com"


async def sign_up(client: SupabaseClient) -> Principal:
    """Register a user through Supabase Auth."""
    tokens = await SupabaseIdentity(client).sign_up(fresh_address(), PASSWORD, None)
    assert tokens
    return Principal(tokens.user_id, tokens.email, tokens.access_token, tokens.expires_at)


def token_of(principal: Principal) -> str:
    """The principal's access token."""
    assert principal.access_token is not None
    return principal.access_token.get_secret_value()


async def converse(client: SupabaseClient, user_id: str, *texts: str, cost: Decimal | None = None) -> list[Turn]:
    """Store one completed turn per text; the reply repeats it."""
    store, turns = SupabaseSessionStore(client), []
    for text in texts:
        new = NewTurn(user_id, uuid.uuid4().hex, text, text, "enqueue")
        accepted = await store.accept(new, "tests", start=True, allowance=Allowance())
        assert accepted.lease
        usage, estimate = Usage(4, 3, 7), Estimate("gpt-4", cost)
        ended = TurnEnd(accepted.turn.id, 1, TurnStatus.COMPLETED, text, usage, estimate, sent_after=0.0)
        turns.append(await store.finish(accepted.lease, ended))
    return turns


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of PostgREST. `refused`: by privilege or policy, without data."""

    status: int
    body: Any

    @property
    def refused(self) -> bool:
        return self.status in (401, 403) and isinstance(self.body, dict)


@dataclass(frozen=True, slots=True)
class Visitor:
    """A client of a project's REST interface, with or without a token."""

    http: httpx.AsyncClient
    env: dict[str, str]
    token: str | None

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        headers = {"apikey": self.env["SUPABASE_ANON_KEY"], "Prefer": "return=representation"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        url = f"{self.env['SUPABASE_URL']}/rest/v1/{path}"
        response = await self.http.request(method, url, json=body, headers=headers)
        return Answer(response.status_code, response.json())
