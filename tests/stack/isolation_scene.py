"""The scene of `test_isolation.py`: Ada with one of everything, and those who are not Ada."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, LiteralString

import aiohttp
import httpx
import psycopg

from server.adapters.supabase.accounts import SupabaseAccountStore
from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.sessions import SupabaseSessionStore
from server.ports import ALL_SCOPES
from tests.stack.chat_client import TIMEOUT, ChatUser, Device, Json, register
from tests.stack.isolation import PLACEHOLDERS, Foreigner
from tests.stack.isolation_credentials import Credentials, claims_of, credentials_of, new_key, sign_in
from tests.stack.running_stack import RunningStack
from tests.stack.supabase_users import client_of, sign_up, token_of

UNTOLD: Final = ("label", "name", "first_cursor", "client_message_id", "failed_client_message_id")
"""Placeholders that tell nothing of Ada: strangers give the ids of her messages to their own."""
Database = psycopg.AsyncConnection[Any]

VOLATILE: Final[dict[str, tuple[str, ...]]] = {
    "sessions": ("heartbeat_at",),
    "billing_accounts": ("look_at", "reread_at", "budget_read_at", "housekeeping_read_at"),
    "api_keys": ("last_used_at",),
}
"""Columns of Ada's rows that change by themselves, or by a request that is refused."""

USER_TABLES: Final = """
select c.relname, a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid
where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
  and a.attname = case c.relname when 'user_profiles' then 'id' else 'user_id' end
order by 1
"""
"""The tables with rows of users, and the column with the user's id."""
AT_AUTH: Final = """
select jsonb_build_object(
  'users', (select jsonb_agg(jsonb_build_array(id, email, encrypted_password)) from auth.users where id = %(user)s),
  'sessions', (
    select jsonb_agg(jsonb_build_array(s.id, d.user_agent, d.address) order by s.id)
    from auth.sessions s left join public.sign_in_devices d on d.session_id = s.id where s.user_id = %(user)s
  )
)
"""
"""What Supabase Auth has of a user, without the times of mails, which anybody may ask for; and the devices."""
SET_ADMIN: Final = "select public.set_admin(%(user)s, %(is_admin)s, null, 'test') ->> 'outcome'"
ABOUT_TO_CHANGE: Final = """
select exists (select from public.attempts where user_id = %(user)s and ended_at is not null and settled_at is null)
  or exists (select from public.turns where user_id = %(user)s and status = 'running' and run_id is null)
  or exists (select from public.billing_accounts where user_id = %(user)s and budget_read_at is null)
"""
"""Whether the server itself has yet to change rows: an ended turn is not charged, a running one not yet sent, or the
budget, which is read after the first charge, not yet stored."""


OLD: Final = 150.0
"""Age in seconds at which Ada's running turn is replaced by another one: servers end one after 280 s at most."""


@dataclass(slots=True)
class Scene:
    """A server, what is Ada's there, and those who are not Ada."""

    stack: RunningStack
    url: str
    http: aiohttp.ClientSession
    ada: ChatUser
    device: Device
    """Her open socket. On it a turn is running, until `gate` opens."""
    gate: str
    begun: float
    """When that turn began, by the loop's clock."""
    secret: str
    ids: dict[str, str]
    """The placeholders of the table, as hers."""
    turns: set[str]
    """All her turns."""
    words: set[str]
    """By what of hers an answer would be recognised."""
    memory: Json
    credentials: Mapping[Foreigner, Credentials]
    another: Callable[[Foreigner], Awaitable[ChatUser]]
    """Makes one more user of this kind; `access_token` is what they present."""
    rows: Callable[[], Awaitable[list[Any]]]
    """Reads every row of hers."""
    settled: Callable[[], Awaitable[None]]
    """Returns when the server itself changes none of them."""

    async def goes_on(self) -> bool:
        """Have a young turn running. Returns True if the one that ran was old, and another one runs now."""
        if asyncio.get_running_loop().time() - self.begun < OLD:
            return False
        await self.ends()
        self.gate, self.begun = uuid.uuid4().hex, asyncio.get_running_loop().time()
        turn_id = (await self.device.say(f"{self.secret} GATE {self.gate} 2 3"))["turn_id"]
        await self.stack.at_gate(self.http, self.gate)
        self.ids["running_turn_id"] = turn_id
        self.turns.add(turn_id)
        self.words.add(turn_id)
        before, self.memory = self.memory, await self.ada.get("/agent/memory")
        assert [self.memory[part] for part in ("blocks", "archival")] == [before["blocks"], before["archival"]]
        await self.settled()
        return True

    async def ends(self) -> None:
        """The running turn ends as it should."""
        await self.stack.open_gate(self.http, self.gate)
        end = await self.device.end_of(self.ids["running_turn_id"])
        assert end["turn"]["message"]["content"].split() == [f"w{number}" for number in range(5)]


@asynccontextmanager
async def isolation_scene(stack: RunningStack, url: str, env: dict[str, str]) -> AsyncIterator[Scene]:
    """The scene on the server at `url`, whose variables are `env`."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2 * TIMEOUT)) as http,
        await psycopg.AsyncConnection.connect(env["SUPABASE_DB_URL"], autocommit=True) as database,
        aclosing(client_of(env)) as client,
        _closed_admins(client, database) as (blocked, deleted),
    ):
        another = partial(_another, http, url, env, database)
        ada, eve, mallory = await asyncio.gather(
            register(http, url, f"Ada {uuid.uuid4().hex}"),
            another(Foreigner.OTHER_USER),
            another(Foreigner.CLAIMED_ADMIN),
        )
        async with ada.connect() as device:
            secret, gate = f"bees {uuid.uuid4().hex}", uuid.uuid4().hex
            ids, spent_ticket, signed_out = await _possessions(ada, device, secret)
            issued = {
                Foreigner.OTHER_USER: eve.access_token,
                Foreigner.CLAIMED_ADMIN: mallory.access_token,
                Foreigner.SIGNED_OUT: signed_out.access_token,
                Foreigner.BLOCKED: blocked,
                Foreigner.DELETED: deleted,
            }
            credentials = await credentials_of(ada, eve, env, SupabaseSessionStore(client), issued, spent_ticket)
            begun = asyncio.get_running_loop().time()
            ids["running_turn_id"] = (await device.say(f"{secret} GATE {gate} 2 3"))["turn_id"]
            await stack.at_gate(http, gate)
            memory, *_ = await asyncio.gather(*(user.get("/agent/memory") for user in (ada, eve, mallory)))
            ids |= {
                "passage_id": memory["archival"]["data"][0]["id"],
                "forged_token": credentials[Foreigner.FORGED].token("chat") or "",
            }
            assert set(PLACEHOLDERS) <= set(ids)
            profile = await ada.get("/user/profile")

            async def settled() -> None:
                async with asyncio.timeout(TIMEOUT):
                    while await _value(database, ABOUT_TO_CHANGE, ada.id):
                        await asyncio.sleep(0.2)

            await settled()
            yield Scene(
                stack=stack,
                url=url,
                http=http,
                ada=ada,
                device=device,
                gate=gate,
                begun=begun,
                secret=secret,
                ids=ids,
                turns={ids[name] for name in ("turn_id", "failed_turn_id", "running_turn_id")},
                words={secret.split()[1], profile["name"], profile["agent_id"]}
                | {value for name, value in ids.items() if name not in UNTOLD},
                memory=memory,
                credentials=credentials,
                another=another,
                rows=await _rows_of(database, ada.id),
                settled=settled,
            )


async def _possessions(ada: ChatUser, device: Device, secret: str) -> tuple[dict[str, str], str, ChatUser]:
    """Give Ada one of everything. Returns their ids, a spent ticket, and a sign-in that has ended."""
    ids = await _history(ada, device, secret)
    (spent_ticket, _), (_, proven_cursor) = await _event_stream(ada), await _event_stream(ada)
    signed_out, key = await sign_in(ada), await new_key(ada, ALL_SCOPES)
    assert (await signed_out.call("POST", "/auth/logout", {"scope": "local"}))[0] == 204
    ids |= {
        "proven_cursor": proven_cursor,
        "signed_out_refresh_token": signed_out.refresh_token,
        "key_id": key.id,
        "key_prefix": key.text.rpartition("_")[0],
    }
    return ids, spent_ticket, signed_out


async def _another(
    http: aiohttp.ClientSession, url: str, env: dict[str, str], database: Database, who: Foreigner
) -> ChatUser:
    """A new user of this kind."""
    user = await register(http, url, "Eve")
    match who:
        case Foreigner.CLAIMED_ADMIN:
            return await _claiming_admin(user, env, database)
        case Foreigner.OTHER_KEY:
            return replace(user, access_token=(await new_key(user, ALL_SCOPES)).text)
        case _:
            return user


async def _history(ada: ChatUser, device: Device, secret: str) -> dict[str, str]:
    """Have Ada's first turns: one that is completed, with memories, and one that may be retried. Returns their ids."""
    calls = [
        ["archival_memory_insert", {"content": f"Ada keeps {secret}"}],
        ["memory_insert", {"label": "human", "new_string": f"Keeps {secret}"}],
    ]
    first, second = uuid.uuid4().hex, uuid.uuid4().hex
    ack = await device.say(f"{secret} CALLS {json.dumps(calls)}", client_message_id=first)
    end = await device.end_of(ack["turn_id"])
    failed = await device.end_of((await device.say(f"{secret} POLICY", client_message_id=second))["turn_id"])
    assert (end["type"], failed["type"]) == ("turn.completed", "turn.failed")
    return {
        "user_id": ada.id,
        "email": ada.email,
        "turn_id": end["turn_id"],
        "message_id": end["turn"]["message"]["id"],
        "client_message_id": first,
        "failed_turn_id": failed["turn_id"],
        "failed_client_message_id": second,
        "history_cursor": (await ada.get("/chat/history?limit=1"))["next_cursor"],
        "first_cursor": f"{end['epoch']}:0",
        "event_cursor": f"{end['epoch']}:{end['seq']}",
        "session_id": claims_of(ada.access_token)["session_id"],
        "label": "human",
        "name": "style.css",
    }


async def _event_stream(ada: ChatUser) -> tuple[str, str]:
    """Ada's ticket, spent on an event stream, and the proven cursor that the stream begins with."""
    _, answer = await ada.call("POST", "/chat/ticket")
    url = f"{ada.url}/api/v1/chat/events"
    async with ada.http.get(url, params={"ticket": answer["ticket"]}) as response:
        assert response.status == 200, await response.text()
        while not (line := await response.content.readline()).startswith(b"id: "):
            pass
    return answer["ticket"], line.decode().removeprefix("id: ").strip()


async def _claiming_admin(user: ChatUser, env: Mapping[str, str], database: Database) -> ChatUser:
    """The user with a token that says admin twice: by what they wrote into their own metadata, and by a role that they
    had when it was issued and have no more."""
    claim = {"role": "admin", "is_admin": True, "app_metadata": {"role": "admin"}}
    headers = {"apikey": env["SUPABASE_ANON_KEY"], **user.headers}
    async with httpx.AsyncClient(timeout=TIMEOUT) as client:
        url = f"{env['SUPABASE_URL']}/auth/v1/user"
        answer = await client.put(url, json={"data": claim, "app_metadata": claim, "role": "admin"}, headers=headers)
        assert answer.status_code == 200, answer.text
    assert not await _value(database, "select private.is_admin(%(user)s)", user.id)
    await _set_admin(database, user.id, is_admin=True)
    again = await sign_in(user)
    await _set_admin(database, user.id, is_admin=False)
    claims = claims_of(again.access_token)
    assert claims["user_metadata"]["role"] == claims["app_metadata"]["role"] == "admin"
    return again


@asynccontextmanager
async def _closed_admins(client: SupabaseClient, database: Database) -> AsyncIterator[tuple[str, str]]:
    """The tokens of a blocked and of a deleted admin, whom the server has not seen before, so that it has nothing of
    them in a cache. A third admin stays until the end of the block, since the last one cannot be removed."""
    blocked, deleted, staying = await sign_up(client), await sign_up(client), await sign_up(client)
    delete = "delete from auth.users where id = any(%s::uuid[])"
    for principal in (blocked, deleted, staying):
        await SupabaseAccountStore(client).ensure(principal.user_id, principal.email, None)
        await _set_admin(database, principal.user_id, is_admin=True)
    await database.execute("update public.user_profiles set agent_status = 'blocked' where id = %s", [blocked.user_id])
    await database.execute(delete, [[deleted.user_id]])
    yield token_of(blocked), token_of(deleted)
    await database.execute(delete, [[blocked.user_id, staying.user_id]])


async def _set_admin(database: Database, user_id: str, *, is_admin: bool) -> None:
    cursor = await database.execute(SET_ADMIN, {"user": user_id, "is_admin": is_admin})
    assert await cursor.fetchone() == ("ok",)


async def _rows_of(database: Database, user_id: str) -> Callable[[], Awaitable[list[Any]]]:
    cursor = await database.execute(USER_TABLES)
    parts = [
        f"select '{table}', coalesce(jsonb_agg(to_jsonb(t) - array{[*VOLATILE.get(table, ()), '']}::text[]"
        f" order by to_jsonb(t)::text), '[]') from public.{table} t where {owner} = %(user)s"
        for table, owner in await cursor.fetchall()
    ]
    query = " union all ".join([*parts, f"select 'auth', ({AT_AUTH})"]).encode()

    async def rows() -> list[Any]:
        return await (await database.execute(query, {"user": user_id})).fetchall()

    return rows


async def _value(database: Database, query: LiteralString, user_id: str) -> Any:
    row = await (await database.execute(query, {"user": user_id})).fetchone()
    return row and row[0]
