"""One server with all its services behind proxies that inject faults, and the resulting state at users and services."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import psycopg
from psycopg.rows import dict_row

from tests.faults.fault_kinds import VENDOR_WORDS
from tests.faults.http_faults import FaultProxy
from tests.stack.chat_client import TIMEOUT, ChatUser, Json, register
from tests.stack.own_server import ServerProcess
from tests.stack.own_supabase import own_supabase
from tests.stack.running_stack import RunningStack

SECRETS: Final = ("SUPABASE_SERVICE_KEY", "LETTA_API_TOKEN", "LITELLM_MASTER_KEY", "SECRET_KEY")
NEVER_SHOWN: Final = (VENDOR_WORDS, "sk-", "Traceback", "127.0.0.1", "<html", "internal_error", "httpx", "aiohttp")
POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Resident:
    """A user whose agent is ready, and the agent's ids at the services."""

    user: ChatUser
    member_id: str
    conversation_id: str


@dataclass(frozen=True, slots=True)
class FailingWorld:
    """`model` is the proxy between Letta and LiteLLM, for model calls; `litellm` the one between the server and
    LiteLLM."""

    stack: RunningStack
    http: aiohttp.ClientSession
    server: ServerProcess
    supabase: FaultProxy
    letta: FaultProxy
    litellm: FaultProxy
    model: FaultProxy
    env: Mapping[str, str]
    residents: list[Resident] = field(default_factory=list)

    async def new_user(self) -> ChatUser:
        """Registered; the agent is being made."""
        return await register(self.http, self.server.url)

    async def new_visitor(self) -> ChatUser:
        """A user who signed up at Supabase and is unknown to the server until the first request; the id is known
        before."""
        email, password = f"{uuid.uuid4().hex[:12]}@example.com", "Passw0rd-2026"
        async with self.http.post(
            f"{self.env['SUPABASE_URL']}/auth/v1/signup",
            json={"email": email, "password": password},
            headers={"apikey": self.env["SUPABASE_ANON_KEY"]},
        ) as response:
            body = await response.json()
            assert response.status == 200, body
        tokens = (body["access_token"], body["refresh_token"])
        return ChatUser(self.http, self.server.url, body["user"]["id"], email, password, *tokens)

    async def new_resident(self) -> Resident:
        """A fresh user whose agent is ready."""
        user = await self.new_user()
        await self.agent_is_ready(user)
        row = await self.profile(user.id)
        return Resident(user, row["letta_member_id"], row["letta_conversation_id"])

    async def resident(self) -> Resident:
        """A shared user, for tests that leave no turn open."""
        if not self.residents:
            self.residents.append(await self.new_resident())
        return self.residents[0]

    async def agent_is_ready(self, user: ChatUser) -> None:
        async with asyncio.timeout(2 * TIMEOUT):
            while (await self.profile(user.id) or {}).get("agent_status") != "active":
                await asyncio.sleep(POLL_SECONDS)

    async def profile(self, user_id: str) -> dict[str, Any]:
        """The user's profile as it is stored; empty where there is none."""
        rows = await self.rows("select * from public.user_profiles where id = %s", user_id)
        return rows[0] if rows else {}

    async def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Rows of the database, read without any service in between."""
        async with await psycopg.AsyncConnection.connect(
            self.env["SUPABASE_DB_URL"], autocommit=True, row_factory=dict_row
        ) as connection:
            return list(await (await connection.execute(query, values)).fetchall())

    async def stored_turns(self, user: ChatUser, content: str) -> list[dict[str, Any]]:
        """The turns whose user message this is."""
        return await self.rows(
            "select t.* from public.turns t join public.messages m on m.turn_id = t.id and m.role = 'user'"
            " where t.user_id = %s and m.content = %s",
            user.id,
            content,
        )

    async def model_calls(self, text: str) -> int:
        """The number of model calls with this text."""
        return len(await self.stack.model_log(self.http, text))

    async def retry_completes(self, user: ChatUser, turn: Json) -> Json:
        """Retry a failed turn, which must complete. Returns it."""
        status, again = await user.call("POST", f"/chat/turns/{turn['id']}/retry")
        assert status == 200, (status, again)
        after = await user.ended(turn["id"])
        assert (after["status"], after["attempt"]) == ("completed", turn["attempt"] + 1), after
        return after

    async def assert_works(self, user: ChatUser) -> None:
        """The same user's next message is answered, by one model call."""
        text = unique()
        turn = await user.say(f"ECHO {text}")
        assert turn["message"]["content"] == text
        assert await self.model_calls(text) == 1

    async def first_reply(self, user: ChatUser, turn: Json) -> Json:
        """A turn that was accepted before the agent was ready, completed: at once or, if provisioning took longer than
        a message waits, after a retry."""
        async with asyncio.timeout(3 * TIMEOUT):
            while (turn := self.presentable(await user.ended(turn["id"])))["status"] == "failed":
                error = turn["error"]
                assert (error["code"], error["retryable"]) in (("agent_unavailable", True), ("letta_unavailable", True))
                await user.call("POST", f"/chat/turns/{turn['id']}/retry")
                await asyncio.sleep(POLL_SECONDS)
        assert turn["status"] == "completed", turn
        return turn

    def presentable(self, answer: object) -> Any:
        """Return an answer to a user, after a check that it contains no text of a vendor and no secret. An epoch is
        random text, and may be like the beginning of a key."""
        readable = (
            {name: said for name, said in answer.items() if name != "epoch"} if isinstance(answer, dict) else answer
        )
        shown = json.dumps(readable)
        secrets = [self.env[name] for name in SECRETS if self.env.get(name)]
        for word in (*NEVER_SHOWN, *secrets):
            assert word not in shown, f"{word!r} is shown to a user: {shown}"
        return answer


def unique() -> str:
    """A text that no other test sends."""
    return f"t{uuid.uuid4().hex}"


@asynccontextmanager
async def failing_world(
    stack: RunningStack, env: Mapping[str, str], log: Path, **variables: str
) -> AsyncIterator[FailingWorld]:
    """A server behind proxies with a Supabase of its own: servers whose model has different addresses would repair each
    other's users."""
    with own_supabase(stack, f"faults_{uuid.uuid4().hex[:8]}") as supabase:
        async with server_behind_proxies(stack, {**env, **supabase}, log, **variables) as world:
            yield world


@asynccontextmanager
async def server_behind_proxies(
    stack: RunningStack, env: Mapping[str, str], log: Path, **variables: str
) -> AsyncIterator[FailingWorld]:
    """A new server behind proxies. `variables` replace its settings.

    Supabase is reached by `http_proxy`, since its tokens name its own address as their issuer. Redis is left out."""
    async with AsyncExitStack() as running:
        supabase, letta, litellm, model = [
            await running.enter_async_context(FaultProxy(env[name]))
            for name in ("SUPABASE_URL", "LETTA_BASE_URL", "LITELLM_BASE_URL", "LITELLM_BASE_URL")
        ]
        settings = {name: value for name, value in env.items() if name != "REDIS_URL"} | {
            "LETTA_BASE_URL": letta.url,
            "LITELLM_BASE_URL": litellm.url,
            "LITELLM_URL_FOR_LETTA": model.url,
            "http_proxy": supabase.url,
            "no_proxy": "",  # in lower case it overrides what the server process sets
            **variables,
        }
        server = running.enter_context(ServerProcess(settings, log))
        await server.ready()
        http = await running.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=3 * TIMEOUT)
            )
        )
        yield FailingWorld(stack, http, server, supabase, letta, litellm, model, env)
