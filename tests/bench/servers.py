"""The two servers that are compared: ours with in-memory stores, and a minimal relay with aiohttp.

Both receive a text frame on a WebSocket, post to the same upstream, and forward its stream.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import aiohttp
import click
import orjson
import structlog
import uvloop
from aiohttp import web
from pydantic import SecretStr

from server.adapters.letta.client import LettaClient
from server.adapters.letta.gateway import LettaGateway
from server.adapters.redis.client import RedisClient
from server.adapters.redis.replicas import RedisReplicas
from server.auth.authenticator import Authenticator
from server.auth.tickets import Tickets
from server.cli.serve import tune_garbage_collector
from server.http.origins import Origins
from server.ports import Account, AgentHandle, Claim, Credential, Estimate, Principal
from server.protocol.codes import ErrorCode
from server.protocol.limits import Limits
from server.protocol.shapes import AgentStatus, Usage
from server.resilience import Breaker
from server.sessions.events.logs import ReplicatedLogs
from server.sessions.hub import SessionHub
from server.sessions.turns.attempt import AttemptServices
from server.streaming.websocket import WebSocketEndpoint
from tests.fakes.accounts import FakeAccountStore
from tests.fakes.credentials import FakeCredentials
from tests.fakes.database import MemoryDatabase, ProfileRow
from tests.fakes.store import FakeSessionStore

_HOUR: Final = timedelta(hours=1)


class AnyToken:
    """A verifier for whom the token is the user's id."""

    async def verify(self, token: str) -> Principal:
        return Principal(token, "bench@example.com", SecretStr(token), datetime.now(UTC) + _HOUR)


class NothingEnded(FakeCredentials):
    """Credentials of users who are stored nowhere."""

    async def ended(self, credentials: Sequence[Credential]) -> set[Credential]:
        return set()


class Opener:
    """Accounts that always exist and are stored nowhere, so that only the server's own memory is measured."""

    async def ensure_account(self, user_id: str, email: str, name: str | None = None) -> Account:
        moment = datetime.now(UTC)
        return Account(
            user_id=user_id,
            email=email,
            name=name,
            agent_status=AgentStatus.ACTIVE,
            status_reason=None,
            encrypted_key=None,
            customer_ready=True,
            key_ready=True,
            organization_id=None,
            member_id=None,
            tools_ready=True,
            provider_id=None,
            agent_id=None,
            conversation_id=None,
            told_name=None,
            customer_email=email,
            config_hash=None,
            intent=None,
            created_at=moment,
            updated_at=moment,
        )

    def start(self, user_id: str) -> None:
        """Nothing to make."""


class AnyUsers(MemoryDatabase):
    """A database in which every user has signed up."""

    def profile(self, user_id: str, email: str | None = None, name: str | None = None) -> ProfileRow:
        self.users.setdefault(user_id, "bench@example.com")
        return super().profile(user_id, email, name)


class OneAgent:
    """Every user's agent, ready."""

    async def ready(self, user_id: str, *, timeout: float) -> AgentHandle:
        return AgentHandle("user-00000000-0000-4000-8000-000000000000", "agent-1", "conv-1")

    async def find_or_replace(self, user_id: str, gone: AgentHandle, *, timeout: float) -> AgentHandle:
        raise NotImplementedError

    async def sync_name(self, user_id: str) -> None: ...

    def key_refused(self, user_id: str) -> None: ...


class ListPrice:
    async def estimate(self, usage: Usage) -> Estimate:
        return Estimate("gpt-4", Decimal("0.00003") * usage.prompt_tokens)


class OwnedElsewhere(FakeSessionStore):
    """A database in which another instance owns every session."""

    async def claim(self, user_id: str, owner: str) -> Claim | None:
        return None


def our_app(
    upstream: str, running_turns: int, redis_url: str | None, deployment: str, *, follows: bool
) -> web.Application:
    """Our sessions and socket around the real Letta adapter, with replicas in Redis where one is named. One that
    `follows` owns no session: its connections receive what the owner of the same deployment publishes."""

    async def collaborators(app: web.Application) -> AsyncIterator[None]:
        database = AnyUsers()
        store = OwnedElsewhere(database) if follows else FakeSessionStore(database)
        accounts = FakeAccountStore(database)
        limits = Limits(running_turns=running_turns)
        letta = LettaClient(upstream, SecretStr("password"), Breaker("letta", ErrorCode.LETTA_UNAVAILABLE))
        attempts = AttemptServices(store, LettaGateway(letta), OneAgent(), ListPrice(), limits)
        logs = None
        if redis_url is not None:
            backend = RedisReplicas(RedisClient(SecretStr(redis_url)), deployment)
            logs = ReplicatedLogs(backend, limits, attempts.now)
        hub = SessionHub(attempts, logs)
        tickets = Tickets(store, SecretStr("bench" * 10))
        authenticator = Authenticator(AnyToken(), tickets, accounts, Opener(), NothingEnded(database))
        endpoint.append(WebSocketEndpoint(hub, authenticator, Origins((), localhost_allowed=True), limits))
        async with hub.running():
            yield
        await letta.aclose()

    async def handle(request: web.Request) -> web.StreamResponse:
        return await endpoint[0].handle(request, "chat")

    endpoint: list[WebSocketEndpoint] = []
    app = web.Application()
    app.router.add_get("/api/v1/chat/stream", handle)
    app.cleanup_ctx.append(collaborators)
    return app


def bare_app(upstream: str) -> web.Application:
    """One parse and one dump a chunk, and nothing else."""

    async def handle(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            body = orjson.loads(message.data)
            async with client[0].post(f"{upstream}/relay", json=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        await socket.send_str(orjson.dumps(orjson.loads(line[6:])).decode())
        return socket

    async def collaborators(app: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            client.append(session)
            yield

    client: list[aiohttp.ClientSession] = []
    app = web.Application()
    app.router.add_get("/api/v1/chat/stream", handle)
    app.cleanup_ctx.append(collaborators)
    return app


async def _serve(app: web.Application, port: int) -> None:
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
    tune_garbage_collector()
    await asyncio.Event().wait()


@click.command()
@click.argument("kind", type=click.Choice(["ours", "follower", "bare"]))
@click.option("--port", type=int, required=True)
@click.option("--upstream", required=True)
@click.option("--running-turns", type=int, default=2000)
@click.option("--redis")
@click.option("--deployment", default=f"bench-{os.getpid()}", help="Which servers share their sessions.")
def main(kind: str, port: int, upstream: str, running_turns: int, redis: str | None, deployment: str) -> None:
    """Serve one of them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if kind == "bare":
        app = bare_app(upstream)
    else:
        app = our_app(upstream, running_turns, redis, deployment, follows=kind == "follower")
    uvloop.run(_serve(app, port))


if __name__ == "__main__":
    main()
