"""One connection pool to a Supabase project, and the three ways through it: service calls, a user's reads, sign-in.

The SDK's clients carry identity in mutable state, so the service client never signs anybody in, and whatever carries a
user is made for one call and thrown away. Closing one of them would close the pool: only `aclose` here does.
"""

import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol, TypeVar

import httpx
from postgrest import AsyncPostgrestClient
from pydantic import SecretStr
from supabase import AsyncClient, AsyncClientOptions
from supabase_auth import AsyncGoTrueClient

from server.adapters.supabase.faults import Faults, Setting
from server.aio import TaskSet
from server.protocol.codes import ErrorCode
from server.resilience import Breaker, Guard, ServiceError, retry_after_in

CALL_SECONDS = 5.0
"""The deadline of one attempt. Our functions take milliseconds: a longer wait means that something is down."""

KEEPALIVE_SECONDS = 4.0
"""Below the 5 s after which Node (Supabase Lite) closes an idle connection."""

CONCURRENT_CALLS = 40
CONCURRENT_READS = 20
"""Users' reads have places of their own: a thousand clients that reload their history hold up no turn and no lease."""

CONNECTIONS = 200
"""More than can be under way at once, those included that nobody waits for any more."""

SERVICE_KEY: Final[Setting] = "SUPABASE_SERVICE_KEY"
ANON_KEY: Final[Setting] = "SUPABASE_ANON_KEY"

RETRY_LATER = frozenset({429, 502, 503, 504})
"""HTTP statuses of a service, or of a gateway in between, that may say when to come back."""

FORWARDED_FOR = "Sb-Forwarded-For"

T = TypeVar("T")


class Query(Protocol):
    """Any of the SDK's request builders."""

    def execute(self) -> Coroutine[Any, Any, Any]: ...


async def _drop_key_as_bearer(request: httpx.Request) -> None:
    """`sb_…` keys are no JWTs and belong in `apikey` alone; the SDK repeats them as a bearer token."""
    if request.headers.get("authorization", "").startswith("Bearer sb_"):
        del request.headers["authorization"]


class SupabaseClient:
    """A project's REST and Auth endpoints. Keys may be `sb_publishable_…`/`sb_secret_…` or legacy JWT keys."""

    def __init__(self, url: str, anon_key: SecretStr, service_key: SecretStr, guard: Guard | None = None) -> None:
        self.url = url.rstrip("/")
        self.guard = guard or Guard(
            Breaker("supabase", ErrorCode.SUPABASE_UNAVAILABLE), attempts=2, slots=CONCURRENT_CALLS
        )
        self._reading = Guard(
            self.guard.breaker, attempts=self.guard.attempts, backoff=self.guard.backoff, slots=CONCURRENT_READS
        )
        self.http = httpx.AsyncClient(
            timeout=httpx.Timeout(CALL_SECONDS, connect=3.0),
            limits=httpx.Limits(
                max_connections=CONNECTIONS, max_keepalive_connections=20, keepalive_expiry=KEEPALIVE_SECONDS
            ),
            event_hooks={"request": [_drop_key_as_bearer], "response": [self._heed_headers]},
        )
        self.faults = Faults()
        self._ahead = 0.0
        self._requests = TaskSet("Supabase request", ignored=(Exception,))  # nobody needs the answer any more
        self._anon_key = anon_key.get_secret_value()
        self._service_key = service_key.get_secret_value()
        self._service = AsyncClient(self.url, service_key.get_secret_value(), self._options())

    def time(self) -> float:
        """Now by PostgREST's clock as it last answered, in seconds since 1970; by ours before it ever did."""
        return time.time() + self._ahead

    async def _heed_headers(self, response: httpx.Response) -> None:
        """The SDK's errors of PostgREST carry no headers: take them from the response. Raises ServiceError."""
        if "/rest/v1/" not in response.request.url.path:
            return
        with suppress(ValueError):
            self._ahead = parsedate_to_datetime(response.headers.get("Date", "")).timestamp() - time.time()
        if response.status_code in RETRY_LATER:
            retry_after = retry_after_in(response.headers)
            raise ServiceError(f"Supabase cannot answer now ({response.status_code})", retry_after=retry_after)

    def _options(self) -> AsyncClientOptions:
        """A fresh object for each client: the SDK keeps the session and the headers in it."""
        return AsyncClientOptions(
            auto_refresh_token=False, persist_session=False, httpx_client=self.http, postgrest_client_retry=False
        )

    async def call(self, function: str, /, *, repeat: bool = True, vital: bool = False, **parameters: object) -> Any:
        """Call one of our SQL functions as the service role; parameters are named without their `p_`.

        Raises PlatformError(supabase_unavailable | invalid_request). `repeat` is for functions that may be called again
        when an answer was lost; `vital` for those that are asked also while Supabase is taken to be away.
        """
        named = {f"p_{name}": value for name, value in parameters.items()}

        async def ask() -> Any:
            return await self._execute(self._service.rpc(function, named), SERVICE_KEY)

        if not repeat:
            return await self.guard.once(ask, deadline=CALL_SECONDS)
        return await self.guard.repeatable(ask, deadline=CALL_SECONDS, vital=vital)

    async def read(self, token: SecretStr, query: Callable[[AsyncPostgrestClient], Query]) -> list[dict[str, Any]]:
        """Read rows with a user's access token, so that row level security judges.

        Raises PlatformError(supabase_unavailable | unauthorized | token_expired).
        """
        headers = {"apikey": self._anon_key, "Authorization": f"Bearer {token.get_secret_value()}"}
        rest = AsyncPostgrestClient(f"{self.url}/rest/v1", headers=headers, http_client=self.http, retry_enabled=False)
        rows: list[dict[str, Any]] = await self._reading.repeatable(
            lambda: self._execute(query(rest), ANON_KEY, of_user=True), deadline=CALL_SECONDS
        )
        return rows

    async def inspect(self, query: Callable[[AsyncClient], Query]) -> list[dict[str, Any]]:
        """Read rows as the service role, past row level security: for operators.

        Raises PlatformError(supabase_unavailable).
        """
        rows: list[dict[str, Any]] = await self.guard.repeatable(
            lambda: self._execute(query(self._service), SERVICE_KEY), deadline=CALL_SECONDS
        )
        return rows

    async def _execute(self, query: Query, key: Setting, *, of_user: bool = False) -> Any:
        with self.faults.translated(key, of_user=of_user):
            data = (await self._carry(query.execute())).data
        if isinstance(data, str):  # none of our functions returns text: the SDK hands on what is no JSON
            raise ServiceError("Supabase answered with something that cannot be read")
        return data

    async def _carry(self, request: Coroutine[Any, Any, T]) -> T:
        """Carry a request that was begun to its end, whoever has stopped waiting for it.

        httpcore's pool loses a connection for good when a request is cancelled after it was given one and before it has
        begun to connect. With its last one it lost the whole project, until the process was started again. What bounds
        an abandoned request is the client's own timeouts.
        """
        return await self._requests.result(self._requests.create(request))

    def visitor(self, address: str | None = None) -> AsyncGoTrueClient:
        """A client of Auth for one sign-up, sign-in or refresh, to be thrown away afterwards, never closed.

        Auth limits these by IP address, and all of ours come from one. With a secret key (`sb_secret_…`, no legacy
        one) it takes the client's `address` from Sb-Forwarded-For, where the project has "IP address forwarding" on
        (supabase.com/docs/guides/auth/rate-limits). Not the SDK's whole client: that starts a task of its own when
        somebody signs in.
        """
        key, forwarded = self._anon_key, {}
        if address is not None and self._service_key.startswith("sb_secret_"):
            key, forwarded = self._service_key, {FORWARDED_FOR: address}
        return AsyncGoTrueClient(
            url=f"{self.url}/auth/v1",
            headers={"apikey": key, "Authorization": f"Bearer {key}", **forwarded},
            auto_refresh_token=False,
            persist_session=False,
            http_client=self.http,
        )

    async def fetch(self, path: str, *, headers: dict[str, str] | None = None, deadline: float = 5.0) -> httpx.Response:
        """GET `path` with the anon key. Raises PlatformError(supabase_unavailable) for 5xx, 429 and no answer."""

        async def get() -> httpx.Response:
            with self.faults.translated(ANON_KEY):
                response = await self._carry(
                    self.http.get(f"{self.url}{path}", headers={"apikey": self._anon_key} | (headers or {}))
                )
            if (refused := self.faults.refuses_our_key(response.status_code, response.text, ANON_KEY)) is not None:
                raise refused
            if response.status_code >= 500 or response.status_code in RETRY_LATER:
                retry_after = retry_after_in(response.headers)
                raise ServiceError(f"Supabase answered {response.status_code}", retry_after=retry_after)
            return response

        return await self.guard.repeatable(get, deadline=deadline)

    async def aclose(self) -> None:
        await self._requests.aclose()
        await self.http.aclose()
