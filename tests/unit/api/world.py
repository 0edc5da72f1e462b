"""A server with fake services, and clients that validate every response with the schema of its route."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from server.accounts.deletion import AccountDeletion, DeletionServices
from server.accounts.export import AccountExport, RunningExports
from server.accounts.history import HistoryDeletion
from server.admin.service import AdminContext, AdminService
from server.api import router
from server.api.console import CONSOLE, BuiltFile
from server.api.openapi import document
from server.api.schemas import Problem
from server.app.lifecycle import Lifecycle
from server.auth.api_keys import ApiKeys
from server.auth.authenticator import Authenticator
from server.auth.gate import AccountGate
from server.auth.reauthentication import Reauthentication
from server.auth.sign_ins import SignInLimits
from server.auth.tickets import Tickets
from server.auth.uniform_delay import UniformDelay
from server.billing.budgets import Budgets
from server.config.settings import Settings
from server.http import app_keys
from server.http.client_address import ClientAddresses
from server.http.origins import Origins
from server.http.rate_limits import AddressLimiter
from server.keyring import KeyRing
from server.observability.metrics import Metrics
from server.observability.readiness import Readiness
from server.observability.service_health import ServiceHealth
from server.ports import AgentTemplate, ControlMessage, Diagnosis, Estimate, Plan, Plans
from server.protocol.limits import Limits
from server.protocol.rates import RateName
from server.protocol.shapes import AgentStatus, Usage
from server.provisioning import Provisioner, ProvisioningContext
from server.resilience.rate_limiter import RateLimiter
from server.sessions.hub import SessionHub
from server.sessions.turns.attempt import AttemptServices
from server.sessions.turns.breakable_gateway import BreakableGateway
from server.streaming.connection_list import ConnectionList
from server.streaming.credential_watch import CredentialWatch
from server.streaming.sse import EventStreams
from server.streaming.websocket import WebSocketEndpoint
from tests.fakes.accounts import FakeAccountStore
from tests.fakes.admin import FakeAdminStore, FakeUserCreation
from tests.fakes.agent import FakeAgentGateway
from tests.fakes.billing import FakeBilling
from tests.fakes.credentials import FakeCredentials
from tests.fakes.database import MemoryDatabase
from tests.fakes.directory import FakeDirectory
from tests.fakes.export import FakeExportStore
from tests.fakes.identity import LIFETIME, FakeIdentity
from tests.fakes.ledger import FakeLedger
from tests.fakes.memory import FakeMemory
from tests.fakes.reads import FakeReads
from tests.fakes.store import FakeSessionStore

SECRET = SecretStr("a secret key that is long enough for this")
ACCOUNT_RATES: tuple[RateName, ...] = ("sign_ins", "registrations", "mails", "codes")
PASSWORD = "correct horse battery"
PLANS = Plans("default", {"default": Plan(Decimal(5), "30d"), "pro": Plan(Decimal(50), "30d")})
DOCUMENT = document(router.ROUTES, "test")


@dataclass(slots=True)
class FlatPrice:
    """Each model call costs 0.002 US dollars."""

    async def estimate(self, usage: Usage) -> Estimate:
        return Estimate("gpt-4", Decimal("0.002") * usage.model_calls)


@dataclass(slots=True)
class SwitchProbe:
    """A dependency that tests switch off. `pings` counts its calls."""

    name: str
    error: Exception | None = None
    pings: int = 0

    async def ping(self) -> None:
        self.pings += 1
        if self.error is not None:
            raise self.error


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.raw)

    @property
    def code(self) -> str:
        return str(self.json["code"])


@dataclass(slots=True)
class Client:
    """A client of the server, signed in or not."""

    http: "TestClient[web.Request, web.Application]"
    token: str | None = None
    user_id: str = ""

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, json: Any = None, **options: Any) -> Answer:
        return await self.request("POST", path, **({"json": json} if json is not None else {}), **options)

    async def patch(self, path: str, json: Any) -> Answer:
        return await self.request("PATCH", path, json=json)

    async def delete(self, path: str, json: Any = None) -> Answer:
        return await self.request("DELETE", path, **({"json": json} if json is not None else {}))

    async def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, **options: Any) -> Answer:
        own = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        async with self.http.request(method, path, headers={**own, **(headers or {})}, **options) as response:
            answer = Answer(response.status, response.headers, await response.read())
        hold_to_table(method, response, answer)
        return answer

    async def say(self, content: str, **options: Any) -> Answer:
        """Send a message and wait for the ended turn."""
        return await self.post("/api/v1/chat/message", {"content": content, "stream": False}, **options)


def hold_to_table(method: str, response: ClientResponse, answer: Answer) -> None:
    """Assert that a response has a status, shape and error code that its route declares."""
    assert answer.headers["X-Request-ID"]
    path = response.url.raw_path
    route = next(
        (r for r in router.ROUTES if r.method == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", r.path), path)), None
    )
    if answer.status >= 400 and response.content_type == "application/problem+json":
        problem = Problem.model_validate_json(answer.raw)
        assert problem.status == answer.status
        assert problem.request_id == answer.headers["X-Request-ID"]
        assert ("Retry-After" in answer.headers) == (problem.retry_after is not None)
        if route is not None:
            documented = DOCUMENT["paths"][route.path][method.lower()]["responses"]
            assert problem.code in documented[str(answer.status)]["description"], (route.path, problem.code)
    elif route is not None:
        reply = route.replies[answer.status]
        if reply.model is not None and response.content_type == "application/json":
            reply.model.model_validate_json(answer.raw)


@dataclass(slots=True)
class World:
    """The server's services, and settings of a test. `passed` moves the clock of tokens, tickets and rows."""

    passed: timedelta = timedelta()
    seconds: float = 0.0
    """The clock of cached accounts."""
    database: MemoryDatabase = field(init=False)
    identity: FakeIdentity = field(init=False)
    gateway: FakeAgentGateway = field(default_factory=FakeAgentGateway)
    billing: FakeBilling = field(default_factory=FakeBilling)
    directory: FakeDirectory = field(default_factory=FakeDirectory)
    memory: FakeMemory = field(default_factory=FakeMemory)
    lifecycle: Lifecycle = field(default_factory=lambda: Lifecycle("running"))
    letta: SwitchProbe = field(default_factory=lambda: SwitchProbe("letta"))
    supabase: SwitchProbe = field(default_factory=lambda: SwitchProbe("supabase"))
    diagnoses: list[Diagnosis] = field(default_factory=list)
    environment: str = "production"
    demo_user: str = ""
    console: Mapping[str, BuiltFile] = field(default_factory=dict)
    origins: tuple[str, ...] = ("https://app.example.com",)
    auth_per_minute: int = 0
    sign_ins_per_minute: int = 0
    new_accounts_per_minute: int = 0
    requests_per_minute: int = 0
    memory_requests_per_minute: int = 0
    searches_per_minute: int = 0
    exports_per_minute: int = 0
    api_key_requests_per_minute: int = 0
    address_header: str | None = None
    gate: AccountGate = field(default_factory=AccountGate)
    requires_aal2: bool = False
    delays: list[float] = field(default_factory=list)
    """The delays of answers that must not tell whether an account exists; they pass at once."""
    limits: Limits = field(default_factory=Limits)
    provisioner: Provisioner = field(init=False)
    watch: CredentialWatch = field(init=False)
    hub: SessionHub = field(init=False)
    budgets: Budgets = field(init=False)
    deletion: AccountDeletion = field(init=False)
    http: "TestClient[web.Request, web.Application]" = field(init=False)

    def __post_init__(self) -> None:
        self.database = MemoryDatabase(clock=self.now)
        self.identity = FakeIdentity(self.database)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.passed

    async def delay(self, seconds: float) -> None:
        self.delays.append(seconds)
        for _ in range(10):  # the steps of a call to the fake
            await asyncio.sleep(0)

    def rates(self) -> dict[RateName, int]:
        """The number per minute of each limit."""
        of_account: dict[RateName, int] = dict.fromkeys(ACCOUNT_RATES, self.sign_ins_per_minute)
        return {
            **of_account,
            "auth_requests": self.auth_per_minute,
            "key_guesses": self.auth_per_minute,
            "new_accounts": self.new_accounts_per_minute,
            "requests": self.requests_per_minute,
            "key_requests": self.api_key_requests_per_minute,
            "memory_requests": self.memory_requests_per_minute,
            "searches": self.searches_per_minute,
            "exports": self.exports_per_minute,
        }

    async def diagnose(self) -> list[Diagnosis]:
        return self.diagnoses

    @property
    def visitor(self) -> Client:
        """A client that is not signed in."""
        return Client(self.http)

    async def user(self, *, ready: bool = True) -> Client:
        """A signed-in user, created at Supabase directly; with a provisioned agent unless `ready` is False."""
        user_id = self.database.sign_up()
        if ready:
            await self.provisioner.ready(user_id, self.database.users[user_id])
        return Client(self.http, self.token(user_id), user_id)

    def token(self, user_id: str, lifetime: timedelta = LIFETIME) -> str:
        return self.identity.issue(user_id, lifetime).access_token.get_secret_value()

    def set_status(self, user_id: str, status: AgentStatus) -> None:
        row = self.database.profiles[user_id]
        row.account = replace(row.account, agent_status=status)

    @asynccontextmanager
    async def serving(self, change: Callable[[web.Application], None] = lambda app: None) -> AsyncIterator["World"]:
        """Run the server; `change` may modify the application before it starts."""
        accounts, store = FakeAccountStore(self.database), FakeSessionStore(self.database)
        template = AgentTemplate("gpt-4", "http://litellm/v1", "hash-1")
        context = ProvisioningContext(self.billing, self.directory, KeyRing(SECRET), PLANS, template)
        self.provisioner = Provisioner(accounts, context)
        gateway = BreakableGateway(self.gateway)
        attempts = AttemptServices(store, gateway, self.provisioner, FlatPrice(), self.limits, now=self.now)
        self.budgets = Budgets(FakeLedger(self.database), self.billing, clock=lambda: self.seconds)

        def received(message: ControlMessage) -> None:
            if message.kind == "recheck":
                authenticator.evict(message.user_id)
                self.watch.recheck(message.user_id)
            else:
                connections.received(message)

        self.hub = SessionHub(attempts, has_budget=self.budgets.may_send_after_refresh, on_message=received)
        connections = ConnectionList(self.hub)
        credentials = FakeCredentials(self.database)
        self.watch = CredentialWatch(self.hub, credentials)
        tickets = Tickets(store, SECRET, seconds=self.limits.ticket_seconds, clock=self.now)
        limiter = RateLimiter(self.rates(), clock=lambda: self.seconds, now=self.now)
        api_keys = ApiKeys(credentials, limiter, clock=lambda: self.seconds)
        authenticator = Authenticator(
            self.identity,
            tickets,
            accounts,
            self.provisioner,
            credentials,
            api_keys=api_keys,
            limiter=limiter,
            gate=self.gate,
            requires_aal2=self.requires_aal2,
            clock=lambda: self.seconds,
        )
        origins = Origins(
            self.origins, own_url="https://chat.example.com", localhost_allowed=self.environment != "production"
        )
        sign_in_limits = SignInLimits(accounts, limiter, [SECRET], clock=lambda: self.seconds)
        app = web.Application()
        app[app_keys.SETTINGS] = self._settings()
        app[app_keys.HUB] = self.hub
        app[app_keys.BREAKABLE] = gateway
        app[app_keys.EVENT_STREAMS] = EventStreams(self.hub, self.limits, tickets)
        app[app_keys.SOCKETS] = WebSocketEndpoint(self.hub, authenticator, origins, self.limits, limiter=limiter)
        app[app_keys.IDENTITY] = self.identity
        app[app_keys.READS] = FakeReads(self.database, self.identity)
        app[app_keys.ACCOUNTS] = accounts
        app[app_keys.PROVISIONER] = self.provisioner
        app[app_keys.MEMORY] = self.memory
        self.deletion = AccountDeletion(
            DeletionServices(accounts, store, self.billing, self.directory), self.hub.agent_changed
        )
        app[app_keys.ACCOUNT_DELETION] = self.deletion
        app[app_keys.ACCOUNT_EXPORT] = AccountExport(accounts, FakeExportStore(self.database), self.memory)
        app[app_keys.ADMIN] = AdminService(
            AdminContext(
                store=FakeAdminStore(self.database),
                accounts=accounts,
                billing=self.billing,
                ledger=FakeLedger(self.database),
                provisioner=self.provisioner,
                plans=PLANS,
                users=FakeUserCreation(self.database),
                deletion=self.deletion,
                export=app[app_keys.ACCOUNT_EXPORT],
                agent_model="gpt-4",
                publish=self.hub.agent_changed,
            )
        )
        app[app_keys.RUNNING_EXPORTS] = RunningExports()
        app[app_keys.HISTORY_DELETION] = HistoryDeletion(accounts, self.directory)
        app[app_keys.BUDGETS] = self.budgets
        app[app_keys.TICKETS] = tickets
        app[app_keys.AUTHENTICATOR] = authenticator
        app[app_keys.API_KEYS] = api_keys
        app[app_keys.CONNECTIONS] = connections
        app[app_keys.CREDENTIALS] = credentials
        app[app_keys.SIGN_IN_LIMITS] = sign_in_limits
        app[app_keys.REAUTHENTICATION] = Reauthentication(
            self.identity, self.identity, accounts, sign_in_limits, self.now
        )
        app[app_keys.UNIFORM_DELAY] = UniformDelay(sleep=self.delay)
        app[app_keys.CLIENT_ADDRESSES] = addresses = ClientAddresses(self.address_header)
        app[app_keys.AUTH_LIMITER] = AddressLimiter(limiter, addresses)
        app[app_keys.LIMITER] = limiter
        app[app_keys.ORIGINS] = origins
        app[app_keys.METRICS] = Metrics()
        app[app_keys.READINESS] = Readiness([self.letta, self.supabase], lambda: self.lifecycle.phase)
        app[app_keys.SERVICE_HEALTH] = ServiceHealth(self.diagnose, now=self.now)
        app[app_keys.NOW] = self.now
        app[CONSOLE] = self.console
        router.install(app)
        change(app)
        async with self.hub.running(), self.gateway, TestClient(TestServer(app)) as self.http:
            yield self
        await self.provisioner.aclose()
        await self.deletion.aclose()

    def _settings(self) -> Settings:
        settings = Settings.model_validate(
            {
                "supabase_url": "http://supabase.test",
                "supabase_anon_key": "sb_publishable_x",
                "supabase_service_key": "sb_secret_x",
                "letta_base_url": "http://letta.test",
                "litellm_base_url": "http://litellm.test",
                "litellm_master_key": "sk-master",
                "secret_key": SECRET,
                "environment": self.environment,
                "demo_user": self.demo_user,
                "demo_model": bool(self.demo_user),
            }
        )
        settings.__dict__["limits"] = self.limits  # what its cached property would hold
        return settings
